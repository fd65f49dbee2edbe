"""Text form of an explanation: English, with the Chinese word beside each term (docs/GLOSSARY.md).

Decides nothing: every figure comes from the rated line or from :func:`billing.pricing.explain.explain`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_Json = Mapping[str, Any]
_DIMENSIONS = {
    "model": "模型",
    "hardware_tier": "算力档",
    "energy_source": "能源",
    "site": "站点",
    "channel": "渠道",
    "service_tier": "服务档",
    "outcome": "结果",
}
_DECLARED = "自定义维度"
_PERIOD_KINDS = {"graduated": "阶梯", "volume": "总量", "blocks": "整包", "commitment": "承诺消费"}


def explain_as_text(line: _Json) -> str:
    """Return a line of ``tokenbill rate --explain`` as text, one fact per line, ending with a newline."""
    return "\n".join(_lines(line)) + "\n"


def _lines(line: _Json) -> Iterator[str]:
    source = "an unknown source" if line["source"] is None else f"source (来源) {line['source']}"
    yield f"event (话单) {'without id' if line['id'] is None else line['id']} of {source}"
    if "account" in line:
        yield f"  account (账户) {line['account']}"
    told = line.get("explain")
    if told is not None:
        yield from _event(told)
        yield from _rows(told)
        yield from _adjustments(told)
        yield from _periods(told)
        yield from _prices(told)
    yield from _result(line, told)


def _event(told: _Json) -> Iterator[str]:
    book = told["price_book"]
    where = f", {book['file']}:{book['line']}" if "file" in book else ""
    yield f"  price book (价目表) {book['label']}, in force (生效) from {book['effective_from']}{where}"
    yield f"  time (时间) {told['time']}"
    for name, value in told["combination"].items():
        yield f"  {name} ({_DIMENSIONS.get(name, _DECLARED)}) {value}"
    meters = " + ".join(told["context"]["meters"]) or "nothing"
    yield f"  context (上下文) {told['context']['tokens']} tokens (词元): {meters}"
    if "output_context" in told:
        meters = " + ".join(told["output_context"]["meters"]) or "nothing"
        yield f"  output_context (输出长度) {told['output_context']['tokens']} tokens (词元): {meters}"
    for band in told["time_bands"]:
        inside = "inside (在内)" if band["inside"] else "outside (不在内)"
        yield f"  time band (时段) {band['name']}: {inside}, {band['local_time']} in {band['timezone']}; {band['why']}"


def _rows(told: _Json) -> Iterator[str]:
    file = told["price_book"].get("file", "")
    if told["row"] is None:
        yield "  no row matches (无匹配价格行)"
    else:
        yield f"  row that won (命中价格行): {_row_text(told['row'], file)}"
    if told["lost"]:
        yield "  rows that lost (落选价格行):"
    for row in told["lost"]:
        yield f"    {_row_text(row, file)}: {'; '.join(row['why'])}"
    if told["lost_more"]:
        yield f"    and {told['lost_more']} more of this model"
    if told["other_models"]:
        yield f"  {_count(told['other_models'], 'row')} of other models (其他模型)"


def _row_text(row: _Json, file: str) -> str:
    fixed = [f"{name} {_value(value)}" for name, value in row.items() if name not in ("index", "line", "why")]
    where = f" ({file}:{row['line']})" if file and "line" in row else ""
    return f"rows[{row['index']}]{where} {', '.join(fixed) or 'for everything'}"


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join('null' if item is None else str(item) for item in value)}]"
    return str(value)


def _adjustments(told: _Json) -> Iterator[str]:
    if not told["adjustments"]:
        return
    yield f"  adjustments (调价) in order, stacking (叠加方式) {told['price_book']['stacking']}:"
    for adjustment in told["adjustments"]:
        on = f" on {', '.join(adjustment['meters'])}" if "meters" in adjustment else ""
        verdict = "matches (适用)" if adjustment["applies"] else f"does not (不适用): {'; '.join(adjustment['why'])}"
        yield f"    {adjustment['index']}: × {adjustment['multiply']}{on}, {adjustment['reason']}: {verdict}"


def _periods(told: _Json) -> Iterator[str]:
    for rule in told.get("periods", ()):
        yield (
            f"  period rule (周期计价) {rule['name']}, {rule['kind']} ({_PERIOD_KINDS[rule['kind']]}): "
            f"{rule['every']} from {rule['first_day']} in {rule['timezone']}, until {rule['until']}"
        )
        if rule["kind"] == "commitment":
            if "settled" in rule:
                yield "    settled before (已结算): nothing is drawn"
            else:
                yield (
                    f"    committed (承诺) {rule['committed']}, drawn (已用) {rule['drawn_before']} before, "
                    f"{rule['drawn_after']} after this event; × {rule['multiply']}, above × {rule['overflow_multiply']}"
                )
            if "included_usage" in rule:
                yield (
                    f"    what buckets pay (套餐内) does not draw it; if they pay nothing, this event costs "
                    f"{rule['above_commitment']} more for what lies above"
                )
            continue
        what = ", ".join(rule["count"])
        if "block" in rule:
            yield (
                f"    {what} in blocks (整包) of {rule['block']['units']} at {rule['block']['price']}, left (剩余) "
                f"{rule['left_before']} before, {rule['left_after']} after this event"
            )
            continue
        yield (
            f"    {what} counted (累计) {rule['counted_before']} before, {rule['counted_after']} after this event; "
            f"tier (档) {', '.join(map(str, rule['tiers_used'])) or 'none'} of {len(rule['tiers'])}, from 0"
        )
        if "settle" in rule:
            yield "    at the end of the period (期末结算), all of it gets the tier that the period reached"


def _prices(told: _Json) -> Iterator[str]:
    currency = told["price_book"]["currency"]
    if told["prices"]:
        yield f"  prices (单价) in {currency} per million, tax included (含税):"
    for price in told["prices"]:
        of = f" as {price['price_of']}" if "price_of" in price else ""
        of += f" in tier {price['tier']}" if "tier" in price else ""
        if "committed" in price:
            of += " within the commitment" if price["committed"] else " above the commitment"
        factor = ""
        if price["adjustments"]:
            numbers = ", ".join(map(str, price["adjustments"]))
            factor = f" × {price['factor']} (adjustment {numbers})"
        if price.get("period_factor", "1") != "1":
            factor += f" × {price['period_factor']} ({'in a block' if 'in_block' in price else 'period rule'})"
        factor += f" = {price['per_million']}" if factor else ""
        yield f"    {price['meter']}{of}: {price['list_per_million']}{factor}"
        if "increment" in price:
            yield (
                f"      used (用量) {price['used']}, billed (计费量) {price['quantity']}: at least "
                f"{price['increment']['minimum']}, in steps (计费步长) of {price['increment']['step']}"
            )
        yield f"      {price['quantity']} × {price['per_million']} ÷ 1000000 = {price['amount']} {currency}"
        yield (
            f"      {price['quantity']} × coefficient (系数) {price['coefficient']} = {price['standard_tokens']} "
            f"standard tokens (标准词元); coefficient {price['coefficient_from']}"
        )


def _result(line: _Json, told: _Json | None) -> Iterator[str]:
    if "rejected" in line:
        yield f"  rejected (拒收) {line['rejected']['reason']}: {line['rejected']['detail']}"
        return
    if told is not None and "minimum_charge" in told:
        added: Sequence[_Json] = [item for item in line["lines"] if item["meter"] == "minimum_charge"]
        missing = f"{added[0]['amount']} was missing and is added" if added else "reached"
        yield f"  minimum charge (最低收费) {told['minimum_charge']} {line['currency']}: {missing}"
    yield f"  amount (金额) {line['amount']} {line['currency']}, without tax (不含税) {line['net']}"
    yield f"  standard tokens (标准词元) {line['standard_tokens']}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
