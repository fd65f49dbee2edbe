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
    UNION SELECT DISTINCT 'command_held', partition FROM command_held
    UNION SELECT DISTINCT 'commit', partition FROM commit
    UNION SELECT DISTINCT 'relay_position', partition FROM relay_position
    UNION SELECT DISTINCT 'foreign_record', partition FROM foreign_record
    UNION SELECT DISTINCT 'conflict', partition FROM conflict
) AS owned WHERE partition NOT IN (SELECT partition FROM partition_state)
""",
    ),
    AuditCheck(
        "partitions",
        "there are as many partitions as the installation has, each at the log time of its last commit",
        """
SELECT format('the installation has %s partitions, there are %s, the last is %s', coalesce(i.value, 'no number of'),
              p.number, p.last)
FROM (SELECT count(*) AS number, max(partition) AS last FROM partition_state) AS p
LEFT JOIN installation AS i ON i.key = 'partitions'
WHERE (i.value IS NOT NULL OR p.number > 0)
    AND (i.value IS DISTINCT FROM p.number::text OR p.last IS DISTINCT FROM p.number - 1)
UNION ALL
SELECT format('partition %s: its log time is %s, that of commit %s is %s', p.partition, p.log_time_us, p.commit_no,
              coalesce(c.log_time_us, 0))
FROM partition_state AS p LEFT JOIN commit AS c USING (partition, commit_no)
WHERE p.log_time_us <> coalesce(c.log_time_us, 0)
""",
    ),
    AuditCheck(
        "stopped partitions",
        "no partition is stopped (`tokenbill partition list`)",
        """
SELECT format('partition %s since %s, %s offset %s: %s', partition,
              to_char(stopped_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), coalesce(topic, 'no topic,'),
              coalesce(stop_offset::text, 'unknown'), reason)
FROM partition_stop ORDER BY partition
""",
    ),
    AuditCheck(
        "resumed partitions",
        "offsets that a person let a partition skip are skipped by the commit that names them, and by no other",
        """
SELECT format('partition %s: the resumption of %s offsets %s to %s is not in commit %s', r.partition, r.topic,
              r.first_offset, r.last_offset, r.commit_no)
FROM partition_resume AS r LEFT JOIN commit AS c USING (partition, commit_no)
WHERE r.commit_no IS NOT NULL AND c.positions IS DISTINCT FROM CASE WHEN r.topic IS NULL THEN '[]'::jsonb ELSE
    jsonb_build_array(jsonb_build_array(r.topic, r.first_offset, r.last_offset + 1, r.last_offset + 1 - r.first_offset))
    END
UNION ALL
SELECT format('partition %s commit %s: %s, but no resumption names it', f.partition, f.commit_no, f.detail)
FROM finding AS f LEFT JOIN partition_resume AS r USING (partition, commit_no)
WHERE f.kind = 'partition_resumed' AND r.partition IS NULL
""",
    ),
    AuditCheck(
        "accepted rows",
        "rows that two people accepted as they are were accepted by the commit that says so, and by no other",
        """
SELECT format('partition %s: the acceptance of %s is not in commit %s', a.partition, a.table_name, a.commit_no)
FROM row_acceptance AS a LEFT JOIN finding AS f
    ON (f.partition, f.commit_no, f.kind) = (a.partition, a.commit_no, 'rows_accepted')
WHERE f.partition IS NULL
UNION ALL
SELECT format('partition %s commit %s: %s, but no acceptance names it', f.partition, f.commit_no, f.detail)
FROM finding AS f LEFT JOIN row_acceptance AS a USING (partition, commit_no)
WHERE f.kind = 'rows_accepted' AND a.partition IS NULL
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
    SELECT c.partition, c.commit_no, m->>0 AS topic, (m->>1)::bigint AS start_offset, (m->>2)::bigint AS end_offset,
        coalesce((m->>3)::bigint, 0) AS skipped
    FROM commit AS c, jsonb_array_elements(c.positions) AS m
), followed AS (
    SELECT *, lag(end_offset, 1, 0) OVER (PARTITION BY partition, topic ORDER BY commit_no) AS before FROM moves
)
SELECT format('%s partition %s commit %s: begins at %s, the one before ended at %s', topic, partition, commit_no,
              start_offset, before)
FROM followed WHERE start_offset <> before OR end_offset < start_offset
UNION ALL
SELECT format('%s partition %s commit %s: skips %s offsets between %s and %s', topic, partition, commit_no, skipped,
              start_offset, end_offset)
FROM moves WHERE skipped NOT BETWEEN 0 AND end_offset - start_offset
UNION ALL
SELECT format('%s partition %s: the position is %s, the commits end at %s', topic, partition,
              coalesce(p.next_offset::text, 'missing'), coalesce(e.last::text, 'nowhere: no such topic and partition'))
FROM position AS p
FULL JOIN (SELECT topic, partition, coalesce(max(m.end_offset), 0) AS last
           FROM partition_state CROSS JOIN unnest(ARRAY['account.commands', 'commands.forwarded', 'usage.events',
                                                        'usage.forwarded']) AS t (topic)
           LEFT JOIN moves AS m USING (topic, partition) GROUP BY 1, 2) AS e USING (topic, partition)
WHERE p.next_offset IS DISTINCT FROM e.last
""",
    ),
    AuditCheck(
        "usage counts",
        "usage records in (offsets less those skipped) = rated + duplicate + rejected + forwarded + dropped +"
        " foreign, in every commit",
        """
SELECT format('partition %s commit %s: %s records in, %s accounted for', partition, commit_no, came, went)
FROM (
    SELECT partition, commit_no, rated + duplicate + rejected + forwarded + dropped + "foreign" AS went,
        (SELECT coalesce(sum((m->>2)::bigint - (m->>1)::bigint - coalesce((m->>3)::bigint, 0)), 0)
         FROM jsonb_array_elements(positions) AS m WHERE m->>0 IN ('usage.events', 'usage.forwarded')) AS came
    FROM commit
) AS c WHERE came <> went ORDER BY partition, commit_no
""",
    ),
    AuditCheck(
        "command counts",
        "command records in (offsets less those skipped) = accepted + rejected + duplicate + forwarded + dropped +"
        " foreign, in every commit",
        """
SELECT format('partition %s commit %s: %s commands in, %s accounted for', partition, commit_no, came, went)
FROM (
    SELECT partition, commit_no, commands_accepted + commands_rejected + commands_duplicate + commands_forwarded
        + commands_dropped + commands_foreign AS went,
        (SELECT coalesce(sum((m->>2)::bigint - (m->>1)::bigint - coalesce((m->>3)::bigint, 0)), 0)
         FROM jsonb_array_elements(positions) AS m WHERE m->>0 IN ('account.commands', 'commands.forwarded')) AS came
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
        "foreign records",
        "every record counted as foreign is kept, and nothing else is",
        """
SELECT format('partition %s commit %s: %s records foreign, %s kept', c.partition, c.commit_no,
              c."foreign" + c.commands_foreign, coalesce(s.kept, 0))
FROM commit AS c
LEFT JOIN (SELECT partition, commit_no, count(*) AS kept FROM foreign_record GROUP BY 1, 2) AS s
    USING (partition, commit_no)
WHERE c."foreign" + c.commands_foreign <> coalesce(s.kept, 0)
""",
    ),
    AuditCheck(
        "conflicts",
        "every resend with other content that a commit reported is kept, and nothing else is",
        """
SELECT format('partition %s commit %s: %s conflicts reported, %s kept', partition, commit_no, coalesce(reported, 0),
              coalesce(kept, 0))
FROM (SELECT partition, commit_no, count(*) AS reported FROM finding WHERE kind = 'identity_conflict'
      GROUP BY 1, 2) AS f
FULL JOIN (SELECT partition, commit_no, count(*) AS kept FROM conflict GROUP BY 1, 2) AS c USING (partition, commit_no)
WHERE coalesce(reported, 0) <> coalesce(kept, 0) AND commit_no > (
    SELECT conflict_after FROM partition_state AS p WHERE p.partition = coalesce(f.partition, c.partition))
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
      FROM account, json_array_elements(coalesce(extras->'bills', '[]')) AS b GROUP BY currency) AS b
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
        "the standard tokens gone from all buckets are those that usage burned, debts paid and carry-overs left behind",
        """
SELECT format('buckets lack %s micro standard tokens, usage burned %s, %s went otherwise', gone, burned, other) FROM
    (SELECT coalesce(sum(amount_micro - remaining_micro), 0) AS gone FROM bucket WHERE unit = 'STD_TOKEN') AS b,
    (SELECT coalesce(sum(burned_micro), 0) AS burned FROM rollup) AS r,
    (SELECT coalesce(sum((extras->>'unburned_micro')::numeric), 0) AS other FROM account) AS o
WHERE gone <> burned + other
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
SELECT format('%s partition %s: the next sequence is %s, the commits end at %s', topic, partition,
              coalesce(s.next_sequence::text, 'missing'), coalesce(e.next::text, 'none: no such topic and partition'))
FROM output_sequence AS s
FULL JOIN (SELECT topic, partition, max(next) AS next
           FROM (SELECT topic, partition, next FROM outputs UNION ALL
                 SELECT topic, partition, 1 FROM partition_state
                 CROSS JOIN unnest(ARRAY['usage.rated', 'package.balance', 'account.events', 'settlement.entries',
                                         'usage.rejected']) AS t (topic)) AS known
           GROUP BY 1, 2) AS e USING (topic, partition)
WHERE s.next_sequence IS DISTINCT FROM e.next
""",
    ),
    AuditCheck(
        "outbox",
        "what waits to be published is what was committed, and all of it waits that the relay has not published",
        """
SELECT format('%s partition %s commit %s: the payload is not the committed one', o.topic, o.partition, o.commit_no)
FROM outbox AS o LEFT JOIN commit AS c USING (partition, commit_no)
WHERE c.outbox->(o.row_no - 1) IS DISTINCT FROM
    jsonb_build_array(o.topic, o.records, o.first_sequence, encode(sha256(o.payload), 'hex'))
UNION ALL
SELECT format('partition %s commit %s: row %s is missing, but the relay published up to commit %s', c.partition,
              c.commit_no, made.row_no, coalesce(r.commit_no::text, 'none: its position is missing'))
FROM commit AS c LEFT JOIN relay_position AS r USING (partition)
CROSS JOIN generate_series(1, jsonb_array_length(c.outbox)) AS made (row_no)
WHERE c.commit_no > coalesce(r.commit_no, 0)
    AND NOT EXISTS (SELECT FROM outbox AS o WHERE (o.partition, o.commit_no, o.row_no)
                    = (c.partition, c.commit_no, made.row_no))
UNION ALL
SELECT format('partition %s commit %s: row %s waits, but the relay published up to commit %s', o.partition,
              o.commit_no, o.row_no, r.commit_no)
FROM outbox AS o JOIN relay_position AS r USING (partition) WHERE o.commit_no <= r.commit_no
UNION ALL
SELECT format('partition %s: the relay published up to commit %s, the last is %s', partition,
              coalesce(r.commit_no::text, 'none: its position is missing'), p.commit_no)
FROM partition_state AS p LEFT JOIN relay_position AS r USING (partition)
WHERE r.commit_no IS NULL OR r.commit_no NOT BETWEEN 0 AND p.commit_no
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
FROM finding AS f WHERE kind <> 'identity_conflict'
    OR commit_no <= (SELECT conflict_after FROM partition_state AS p WHERE p.partition = f.partition)
GROUP BY kind ORDER BY kind
""",
    ),
    AuditCheck(
        "open conflicts",
        "usage sent again with other content that nobody resolved (`tokenbill conflict list`)",
        """
SELECT format('%s of account %s, the first at %s', count(*), account,
              (array_agg(topic || '/' || partition || '/' || record_offset ORDER BY log_time_us, commit_no, row_no))[1])
FROM conflict AS c
WHERE NOT EXISTS (SELECT FROM conflict_resolution AS r WHERE (r.partition, r.commit_no, r.row_no)
                  = (c.partition, c.commit_no, c.row_no))
GROUP BY account ORDER BY count(*) DESC, account
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
    AuditCheck(
        "accepted repairs",
        "rows that two people took as they are, after a repair by hand (`tokenbill audit accept`)",
        """
SELECT format('partition %s commit %s: %s, %s rows with the sum %s became %s with the sum %s: %s (%s with key %s, %s'
              ' with key %s)', partition, commit_no, table_name, rows_before, left(encode(total_before, 'hex'), 16),
              rows_after, left(encode(total_after, 'hex'), 16), reason, requested_by, requested_key, approved_by,
              approved_key)
FROM row_acceptance ORDER BY acceptance_no
""",
    ),
)
