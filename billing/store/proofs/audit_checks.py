"""SQL checks of ``audit``: each is an invariant and a query that returns one row for each violation.

A row is one text that describes the violation. Debit is positive, credit negative. ``FINDINGS`` are reported for
operators and do not fail the audit.
"""

from dataclasses import dataclass
from typing import LiteralString


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """One invariant: its name, its statement in words, and the query for its violations."""

    name: str
    sentence: str
    query: LiteralString


CHECKS = (
    AuditCheck(
        "orphans",
        "nothing belongs to a partition that does not exist",
        """
SELECT format('%s: partition %s', kind, partition) FROM (
    SELECT DISTINCT 'journal' AS kind, partition FROM journal
    UNION SELECT DISTINCT 'rollup', partition FROM rollup
    UNION SELECT DISTINCT 'command_seen', partition FROM command_seen
    UNION SELECT DISTINCT 'payment_ref', partition FROM payment_ref
    UNION SELECT DISTINCT 'bucket', partition FROM bucket
    UNION SELECT DISTINCT 'suspense', partition FROM suspense
) AS owned WHERE partition NOT IN (SELECT partition FROM partition_state)
""",
    ),
    AuditCheck(
        "journal",
        "the journal lines of every commit add up to zero in each currency",
        """
SELECT format('partition %s commit %s: %s pico %s too much', partition, commit_no, sum(amount_pico), currency)
FROM journal GROUP BY partition, commit_no, currency HAVING sum(amount_pico) <> 0 ORDER BY partition, commit_no
""",
    ),
    AuditCheck(
        "trial balance",
        "all control accounts add up to zero in each currency",
        """
SELECT format('%s: %s pico', currency, sum(amount_pico)) FROM journal GROUP BY currency HAVING sum(amount_pico) <> 0
""",
    ),
    AuditCheck(
        "positions",
        "each commit begins where the one before ended, and the last ended at the position",
        """
WITH moves AS (
    SELECT c.partition, c.commit_no, m->>0 AS topic, (m->>1)::bigint AS start_offset, (m->>2)::bigint AS end_offset
    FROM commit AS c, jsonb_array_elements(c.positions) AS m
), followed AS (
    SELECT *, lag(end_offset, 1, 0) OVER (PARTITION BY partition, topic ORDER BY commit_no) AS before FROM moves
)
SELECT format('%s partition %s commit %s: begins at %s, the one before ended at %s', topic, partition, commit_no,
              start_offset, before)
FROM followed WHERE start_offset <> before OR end_offset < start_offset
UNION ALL
SELECT format('%s partition %s: the position is %s, the commits end at %s', p.topic, p.partition, p.next_offset,
              coalesce(m.last, 0))
FROM position AS p
LEFT JOIN (SELECT topic, partition, max(end_offset) AS last FROM moves GROUP BY 1, 2) AS m USING (topic, partition)
WHERE p.next_offset <> coalesce(m.last, 0)
""",
    ),
    AuditCheck(
        "usage counts",
        "usage records in = rated + duplicate + rejected + forwarded + dropped, in every commit",
        """
SELECT format('partition %s commit %s: %s records in, %s accounted for', partition, commit_no, came, went)
FROM (
    SELECT partition, commit_no, rated + duplicate + rejected + forwarded + dropped AS went,
        (SELECT coalesce(sum((m->>2)::bigint - (m->>1)::bigint), 0) FROM jsonb_array_elements(positions) AS m
         WHERE m->>0 IN ('usage.events', 'usage.forwarded')) AS came
    FROM commit
) AS c WHERE came <> went ORDER BY partition, commit_no
""",
    ),
    AuditCheck(
        "command counts",
        "command records in = accepted + rejected + duplicate + forwarded + dropped, in every commit",
        """
SELECT format('partition %s commit %s: %s commands in, %s accounted for', partition, commit_no, came, went)
FROM (
    SELECT partition, commit_no, commands_accepted + commands_rejected + commands_duplicate + commands_forwarded
        + commands_dropped AS went,
        (SELECT coalesce(sum((m->>2)::bigint - (m->>1)::bigint), 0) FROM jsonb_array_elements(positions) AS m
         WHERE m->>0 IN ('account.commands', 'commands.forwarded')) AS came
    FROM commit
) AS c WHERE came <> went ORDER BY partition, commit_no
""",
    ),
    AuditCheck(
        "accepted commands",
        "every accepted command is kept as seen, and nothing else is",
        """
SELECT format('partition %s commit %s: %s commands accepted, %s kept', c.partition, c.commit_no, c.commands_accepted,
              coalesce(s.kept, 0))
FROM commit AS c
LEFT JOIN (SELECT partition, commit_no, count(*) AS kept FROM command_seen GROUP BY 1, 2) AS s
    USING (partition, commit_no)
WHERE c.commands_accepted <> coalesce(s.kept, 0)
""",
    ),
    AuditCheck(
        "suspense",
        "every rejected usage record is kept in suspense, and nothing else is",
        """
SELECT format('partition %s commit %s: %s records rejected, %s kept', c.partition, c.commit_no, c.rejected,
              coalesce(s.kept, 0))
FROM commit AS c
LEFT JOIN (SELECT partition, commit_no, count(*) AS kept FROM suspense GROUP BY 1, 2) AS s
    USING (partition, commit_no)
WHERE c.rejected <> coalesce(s.kept, 0)
    AND c.commit_no > (SELECT suspense_after FROM partition_state AS p WHERE p.partition = c.partition)
""",
    ),
    AuditCheck(
        "liability",
        "the liability of all buckets is what the journal owes, in each currency",
        """
SELECT format('%s: buckets hold %s pico, the journal owes %s', currency, coalesce(held, 0), coalesce(owed, 0))
FROM (SELECT currency, sum(liability_pico) AS held FROM bucket JOIN account USING (account) GROUP BY currency) AS b
FULL JOIN (SELECT currency, -sum(amount_pico) AS owed FROM journal WHERE account_code = 'contract_liability'
           GROUP BY currency) AS j USING (currency)
WHERE coalesce(held, 0) <> coalesce(owed, 0)
""",
    ),
    AuditCheck(
        "bills",
        "what is open on all bills is what the journal has to receive, in each currency",
        """
SELECT format('%s: bills have %s pico open, the journal has %s to receive', currency, coalesce(open, 0),
              coalesce(owed, 0))
FROM (SELECT currency, sum((b->>'amount_pico')::numeric - coalesce((b->>'paid_pico')::numeric, 0)) AS open
      FROM account, jsonb_array_elements(coalesce(extras->'bills', '[]')) AS b GROUP BY currency) AS b
FULL JOIN (SELECT currency, sum(amount_pico) AS owed FROM journal WHERE account_code = 'receivables'
           GROUP BY currency) AS j USING (currency)
WHERE coalesce(open, 0) <> coalesce(owed, 0)
""",
    ),
    AuditCheck(
        "transfers",
        "what is cleared between accounts is on its way: sent, not yet received, and no more than was forwarded",
        """
WITH clearing AS (
    SELECT currency, detail, sum(amount_pico) AS pico FROM journal WHERE account_code = 'transfer_clearing'
    GROUP BY 1, 2 HAVING sum(amount_pico) <> 0
), waiting AS (
    SELECT sum(n.next_number - coalesce(c.next_number, 0)) AS records
    FROM (SELECT topic, partition AS origin, target AS partition, next_number FROM forward_next) AS n
    LEFT JOIN forward_cursor AS c USING (topic, origin, partition) WHERE topic = 'commands.forwarded'
)
SELECT format('%s: %s pico %s were received and not sent', detail, pico, currency) FROM clearing WHERE pico > 0
UNION ALL
SELECT format('%s transfers are on their way, but only %s commands; the first is %s', open, coalesce(records, 0), first)
FROM (SELECT count(*) AS open, min(detail) AS first FROM clearing) AS c CROSS JOIN waiting
WHERE open > coalesce(records, 0)
""",
    ),
    AuditCheck(
        "wallets",
        "the money in all wallets is what the journal holds as deposits, in each currency",
        """
SELECT format('%s: wallets hold %s pico, the journal owes %s', currency, coalesce(held, 0), coalesce(owed, 0))
FROM (SELECT currency, sum(wallet_pico) AS held FROM account GROUP BY currency) AS w
FULL JOIN (SELECT currency, -sum(amount_pico) AS owed FROM journal WHERE account_code = 'customer_deposits'
           GROUP BY currency) AS j USING (currency)
WHERE coalesce(held, 0) <> coalesce(owed, 0)
""",
    ),
    AuditCheck(
        "quota",
        "the standard tokens gone from all buckets are those that usage burned",
        """
SELECT format('buckets lack %s micro standard tokens, usage burned %s', gone, burned) FROM
    (SELECT coalesce(sum(amount_micro - remaining_micro), 0) AS gone FROM bucket WHERE unit = 'STD_TOKEN') AS b,
    (SELECT coalesce(sum(burned_micro), 0) AS burned FROM rollup) AS r
WHERE gone <> burned
""",
    ),
    AuditCheck(
        "absorbed",
        "the usage absorbed on all accounts is what the rollup absorbed, in each currency",
        """
SELECT format('%s: accounts absorbed %s micro and %s pico, the rollup %s and %s', currency, coalesce(a.micro, 0),
              coalesce(a.pico, 0), coalesce(r.micro, 0), coalesce(r.pico, 0))
FROM (SELECT currency, sum(absorbed_micro) AS micro, sum(absorbed_pico) AS pico FROM account GROUP BY currency) AS a
FULL JOIN (SELECT currency, sum(absorbed_micro) AS micro, sum(absorbed_pico) AS pico FROM rollup GROUP BY currency) AS r
    USING (currency)
WHERE coalesce(a.micro, 0) <> coalesce(r.micro, 0) OR coalesce(a.pico, 0) <> coalesce(r.pico, 0)
""",
    ),
    AuditCheck(
        "revenue",
        "the usage revenue of the rollup is that of the journal, in every commit and currency",
        """
SELECT format('partition %s commit %s: the rollup has %s pico %s, the journal %s', partition, commit_no,
              coalesce(r.pico, 0), currency, coalesce(j.pico, 0))
FROM (SELECT partition, commit_no, currency, sum(revenue_pico) AS pico FROM rollup GROUP BY 1, 2, 3) AS r
FULL JOIN (SELECT partition, commit_no, currency, -sum(amount_pico) AS pico FROM journal
           WHERE account_code = 'revenue_usage' GROUP BY 1, 2, 3) AS j USING (partition, commit_no, currency)
WHERE coalesce(r.pico, 0) <> coalesce(j.pico, 0)
""",
    ),
    AuditCheck(
        "rated events",
        "the events of the rollup are those counted as rated, in every commit",
        """
SELECT format('partition %s commit %s: the rollup has %s events, %s were rated', c.partition, c.commit_no,
              coalesce(r.events, 0), c.rated)
FROM commit AS c
LEFT JOIN (SELECT partition, commit_no, sum(events) AS events FROM rollup GROUP BY 1, 2) AS r
    USING (partition, commit_no)
WHERE c.rated <> coalesce(r.events, 0)
""",
    ),
    AuditCheck(
        "output sequences",
        "output of each topic and partition is numbered without holes, up to its next sequence",
        """
WITH outputs AS (
    SELECT c.partition, c.commit_no, o->>0 AS topic, (o->>2)::bigint AS first, (o->>2)::bigint + (o->>1)::bigint AS next
    FROM commit AS c, jsonb_array_elements(c.outbox) AS o
), followed AS (
    SELECT *, lag(next, 1, 1) OVER (PARTITION BY partition, topic ORDER BY commit_no, first) AS before FROM outputs
)
SELECT format('%s partition %s commit %s: begins at %s, not %s', topic, partition, commit_no, first, before)
FROM followed WHERE first <> before
UNION ALL
SELECT format('%s partition %s: the next sequence is %s, the commits end at %s', s.topic, s.partition,
              s.next_sequence, coalesce(o.next, 1))
FROM output_sequence AS s
LEFT JOIN (SELECT topic, partition, max(next) AS next FROM outputs GROUP BY 1, 2) AS o USING (topic, partition)
WHERE s.next_sequence <> coalesce(o.next, 1)
""",
    ),
    AuditCheck(
        "outbox",
        "what waits to be published is what was committed, and all of it",
        """
SELECT format('%s partition %s commit %s: the payload is not the committed one', o.topic, o.partition, o.commit_no)
FROM outbox AS o LEFT JOIN commit AS c USING (partition, commit_no)
WHERE c.outbox->(o.row_no - 1) IS DISTINCT FROM
    jsonb_build_array(o.topic, o.records, o.first_sequence, encode(sha256(o.payload), 'hex'))
UNION ALL
SELECT format('partition %s commit %s: %s rows of output were committed, %s wait', partition, commit_no, committed,
              waiting)
FROM (
    SELECT c.partition, c.commit_no, jsonb_array_length(c.outbox) AS committed,
        (SELECT count(*) FROM outbox AS o WHERE (o.partition, o.commit_no) = (c.partition, c.commit_no)) AS waiting
    FROM commit AS c JOIN relay_position AS r USING (partition) WHERE c.commit_no > r.commit_no
) AS unpublished WHERE committed <> waiting
""",
    ),
    AuditCheck(
        "forwarding",
        "no partition applied more forwarded records than were sent to it, and as many were sent as counted",
        """
SELECT format('%s from %s to %s: %s applied, %s sent', topic, c.origin, c.partition, c.next_number,
              coalesce(n.next_number, 0))
FROM forward_cursor AS c
LEFT JOIN (SELECT topic, partition AS origin, target AS partition, next_number FROM forward_next) AS n
    USING (topic, origin, partition)
WHERE c.next_number > coalesce(n.next_number, 0)
UNION ALL
SELECT format('partition %s: %s forwarded by its commits, %s numbered', partition, counted, coalesce(numbered, 0))
FROM (SELECT partition, sum(forwarded + commands_forwarded + messages_sent) AS counted FROM commit
      GROUP BY partition) AS c
LEFT JOIN (SELECT partition, sum(next_number) AS numbered FROM forward_next GROUP BY partition) AS n USING (partition)
WHERE counted <> coalesce(numbered, 0)
""",
    ),
)

FINDINGS = (
    AuditCheck(
        "forwarded and not yet applied",
        "records on their way to their partition; none when nothing runs and nothing waits",
        """
SELECT format('%s from %s to %s: %s of %s', topic, n.origin, n.partition, n.next_number - coalesce(c.next_number, 0),
              n.next_number)
FROM (SELECT topic, partition AS origin, target AS partition, next_number FROM forward_next) AS n
LEFT JOIN forward_cursor AS c USING (topic, origin, partition)
WHERE n.next_number > coalesce(c.next_number, 0) ORDER BY 1
""",
    ),
    AuditCheck(
        "reported by commits",
        "what workers found and a person should look at",
        """
SELECT format('%s: %s, the first in partition %s commit %s: %s', kind, count(*), (min(ARRAY[commit_no, partition]))[2],
              min(commit_no), (array_agg(detail ORDER BY commit_no, partition, row_no))[1])
FROM finding GROUP BY kind ORDER BY kind
""",
    ),
    AuditCheck(
        "open suspense",
        "rejected usage that nobody sent again (`tokenbill suspense list`)",
        """
SELECT format('%s: %s', reason, count(*)) FROM suspense AS s
WHERE NOT EXISTS (SELECT FROM suspense_resolution AS r WHERE (r.partition, r.commit_no, r.row_no)
                  = (s.partition, s.commit_no, s.row_no))
GROUP BY reason ORDER BY reason
""",
    ),
)
