"""Words of a price sheet in English and Chinese: column headers, meters, currencies and units."""

import re
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches

from schemas.meters import METERS

METER, PRICE, UNIT = "meter", "price", "unit"
CONTEXT_FROM, CONTEXT_TO = "context_from", "context_to"
EFFECTIVE_FROM, SOURCE, CURRENCY = "effective_from", "source", "currency"
_ROLES = {
    "model": ("model", "模型", "模型名称"),
    "hardware_tier": ("hardware_tier", "hardware", "硬件", "硬件等级", "芯片"),
    "energy_source": ("energy_source", "energy", "能源", "电力来源"),
    "site": ("site", "站点", "机房", "智算中心"),
    "channel": ("channel", "渠道"),
    "service_tier": ("service_tier", "服务等级"),
    METER: ("meter", "计量项", "计费项"),
    PRICE: ("price", "单价", "价格"),
    UNIT: ("unit", "单位", "计价单位"),
    CONTEXT_FROM: ("context_from", "上下文起"),
    CONTEXT_TO: ("context_to", "上下文止"),
    EFFECTIVE_FROM: ("effective_from", "生效日期", "生效时间"),
    SOURCE: ("source", "note", "来源", "备注", "说明"),
    CURRENCY: ("currency", "币种"),
}
_METERS = {
    "input": ("输入",),
    "cache_read": ("缓存命中", "缓存读取", "缓存输入"),
    "cache_write": ("缓存写入", "缓存创建"),
    "cache_write_1h": ("缓存写入1小时",),
    "output": ("输出",),
    "reasoning": ("推理", "思考", "推理输出"),
    "audio_input": ("音频输入",),
    "audio_cache_read": ("音频缓存命中",),
    "audio_output": ("音频输出",),
    "image_input": ("图像输入", "图片输入"),
    "image_cache_read": ("图像缓存命中", "图片缓存命中"),
    "image_output": ("图像输出", "图片输出"),
    "video_input": ("视频输入",),
    "video_output": ("视频输出",),
    "sensor_input": ("传感器输入",),
    "requests": ("请求", "调用次数"),
    "images": ("图像", "图片"),
    "milliseconds": ("毫秒", "媒体时长"),
    "device_milliseconds": ("设备毫秒", "设备时长"),
    "characters": ("字符",),
    "pages": ("页", "页数"),
    "searches": ("搜索",),
    "gb_hours": ("存储", "存储GB时"),
    "seats": ("席位",),
}
_CURRENCIES = {"元": "CNY", "人民币": "CNY", "cny": "CNY", "rmb": "CNY", "usd": "USD", "美元": "USD"}
_SCALES = {
    10**6: ("百万", "百万词元", "百万token", "百万tokens", "million", "1m", "m", "million_tokens", "1m_tokens"),
    10**4: ("万", "万词元", "万字符"),
    10**3: ("千", "千词元", "千token", "千tokens", "thousand", "1k", "k", "1k_tokens", "千次", "千字符"),
    1: ("个", "次", "张", "页", "席", "unit", "image", "request", "page", "character", "search", "seat", "gb_hour"),
}
_SECOND = ("秒", "second", "s")
_OF_TIME = ("milliseconds", "device_milliseconds")
UNIT_HELP = "a currency and a number of units such as 元/百万, CNY/million or USD/1k"


def plain_word(text: str) -> str:
    """Return a header or word in one spelling, independent of character width, case and blanks."""
    return re.sub(r"[\s\-]+", "_", unicodedata.normalize("NFKC", text).strip().casefold())


_ROLE_OF = {plain_word(word): role for role, words in _ROLES.items() for word in words}
_METER_OF = {plain_word(word): meter for meter in METERS for word in (meter, *_METERS.get(meter, ()))}
_SCALE_OF = {word: scale for scale, words in _SCALES.items() for word in words}
_WITH_UNIT = re.compile(r"(?P<name>[^()]+?)_?\((?P<unit>[^()]*)\)")


@dataclass(frozen=True, slots=True)
class Unit:
    """Unit of a price: a currency and a number of units of a meter. ``of_time`` is True if the unit is a second."""

    currency: str
    units: int
    of_time: bool = False

    def fits(self, meter: str) -> bool:
        """Return True if a meter can be priced in this unit."""
        return not self.of_time or meter in _OF_TIME


@dataclass(frozen=True, slots=True)
class SheetColumn:
    """Column of a sheet: its role or the meter that it prices, and the unit in its header."""

    index: int
    header: str
    role: str = ""
    meter: str = ""
    unit: Unit | None = None


def read_unit(text: str) -> Unit | None:
    """Return the unit of a text such as ``元/百万``; None if it is not one."""
    currency, slash, amount = plain_word(text).partition("/")
    if not slash or currency not in _CURRENCIES:
        return None
    if amount in _SECOND:
        return Unit(_CURRENCIES[currency], 1000, of_time=True)
    scale = _SCALE_OF.get(amount)
    return None if scale is None else Unit(_CURRENCIES[currency], scale)


def read_meter(text: str) -> str | None:
    """Return the built-in meter of a name in English or Chinese, or None."""
    return _METER_OF.get(plain_word(text))


def read_currency(text: str) -> str:
    """Return the currency code of a word: ``人民币`` is CNY. Any other word is taken as a code."""
    return _CURRENCIES.get(plain_word(text), text.upper())


def read_header(index: int, header: str) -> SheetColumn | str:
    """Return the column of a header, or a message if the header is wrong."""
    word, unit = plain_word(header), None
    match = _WITH_UNIT.fullmatch(word)
    if match is not None:
        word = match["name"].strip("_")
        unit = read_unit(match["unit"])
    role, meter = _ROLE_OF.get(word, ""), _METER_OF.get(word, "")
    if not role and not meter:
        close = get_close_matches(word, [*_ROLE_OF, *_METER_OF], 1)
        hint = f"did you mean {close[0]!r}?" if close else f"the columns are {', '.join(_ROLES)} and the meters"
        return f"the header {header!r} is not known; {hint}"
    priced = role == PRICE or bool(meter)
    if match is not None and unit is None and priced:
        return f"the header {header!r} has no unit that is known; write {UNIT_HELP}"
    if meter and unit is None:
        return f"the header {header!r} does not say what the price is for; add {UNIT_HELP} in brackets"
    return SheetColumn(index, header, role, meter, unit)
