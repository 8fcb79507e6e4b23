# What the tests with a second server share: that server, three sinks and more
# of one form, of which one is there, and an oracle that looks at each of them.
#
# The form MOOD goes into a wide table, into a long table in partitions, into
# mood_north if the site is N, and to the other server if the severity is 2 or
# more. The form AE stays here: it shows that what is not for the other server
# does not wait for it.
#
# Nothing here sleeps to be right. What has to be slow on the other server waits
# at an advisory lock there, which the test holds.
package RemoteTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use EproTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  create_far create_flow link_far put flow_anew begin_stream end_stream
  flow_shows flow_is settled far_session sinks_ok reach log_since far_statements
);

# What a response's sinks on both servers are made of.
my $columns = 'source_id bigint, subject_key text, visit text, site text, severity int, score int, note text, run_id bigint';

my $here = <<"SQL";
CREATE TABLE staging (
    response_id bigint PRIMARY KEY,
    study text, form text, subject text, visit text,
    authored timestamptz, payload jsonb);
-- what was ever staged and not taken back: the oracle's one truth
CREATE TABLE put_in (response_id bigint PRIMARY KEY, form text, subject text, payload jsonb);
-- what was changed or taken back while it was staged
CREATE TABLE changed (response_id bigint);

CREATE TABLE mood_wide ($columns, PRIMARY KEY (source_id));
CREATE TABLE mood_north ($columns, PRIMARY KEY (source_id));
CREATE TABLE ae_wide (source_id bigint PRIMARY KEY, subject_key text, note text, run_id bigint);
CREATE TABLE mood_long (source_id bigint, subject_key text, item text, value text, value_number numeric, run_id bigint,
    PRIMARY KEY (source_id, item)) PARTITION BY HASH (source_id);
CREATE TABLE mood_long_0 PARTITION OF mood_long FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE mood_long_1 PARTITION OF mood_long FOR VALUES WITH (MODULUS 2, REMAINDER 1);

CREATE FUNCTION answers(id bigint) RETURNS jsonb LANGUAGE sql AS \$\$
    SELECT jsonb_build_object('site', CASE id % 3 WHEN 0 THEN 'N' ELSE 'S' END, 'severity', id % 4, 'score', id % 11, 'note', 'note of ' || id);
\$\$;

-- every tenth is an AE
CREATE FUNCTION put(first bigint, last bigint, more jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS \$\$
    WITH made AS (
        INSERT INTO staging
        SELECT g, 'ST01', CASE WHEN g % 10 = 7 THEN 'AE' ELSE 'MOOD' END, 'S-' || (g % 97), 'V' || (g % 5), '2026-01-01 08:00+00', answers(g) || more
        FROM generate_series(first, last) g
        RETURNING response_id, form, subject, payload)
    INSERT INTO put_in SELECT * FROM made;
\$\$;

-- Says what is wrong, a line a thing; nothing when all is well.
CREATE FUNCTION wrong() RETURNS SETOF text LANGUAGE plpgsql AS \$\$
DECLARE
    relation text;
BEGIN
    -- a server that has just crashed knows nothing of its tables
    ANALYZE staging, put_in, changed, mood_wide, mood_north, mood_long, ae_wide, epro_etl.quarantine, epro_etl.finding, epro_etl.outbox;
    RETURN QUERY
        WITH p AS (SELECT id, count(*) AS n, string_agg(place, ', ') AS at FROM (
                SELECT response_id AS id, 'staging' AS place FROM staging
                UNION ALL SELECT source_id::bigint, 'quarantine' FROM epro_etl.quarantine
                UNION ALL SELECT source_id, 'mood_wide' FROM mood_wide
                UNION ALL SELECT source_id, 'ae_wide' FROM ae_wide) x GROUP BY id)
        SELECT format('response %s is there %s times: %s (put in: %s)', coalesce(i.response_id, p.id), coalesce(p.n, 0), p.at, i.response_id IS NOT NULL)
        FROM put_in i FULL JOIN p ON p.id = i.response_id
        WHERE i.response_id IS NULL OR p.n IS DISTINCT FROM 1 LIMIT 10;

    CREATE TEMPORARY TABLE loaded AS SELECT * FROM put_in i
        WHERE NOT EXISTS (SELECT FROM staging s WHERE s.response_id = i.response_id)
          AND NOT EXISTS (SELECT FROM epro_etl.quarantine q WHERE q.source_id = i.response_id::text);
    ANALYZE loaded;
    FOREACH relation IN ARRAY ARRAY['mood_wide', 'mood_north'] LOOP
        RETURN QUERY EXECUTE format(
            'SELECT format(''%I, response %%s: put in %%s, stored %%s'', coalesce(l.response_id, s.source_id), l.response_id IS NOT NULL, s.source_id IS NOT NULL)'
            ' FROM (SELECT * FROM loaded WHERE form = ''MOOD'' AND (%s)) l FULL JOIN %I s ON s.source_id = l.response_id'
            ' WHERE (l.payload->>''site'', l.payload->>''severity'', l.payload->>''score'', l.payload->>''note'')'
            ' IS DISTINCT FROM (s.site, s.severity::text, s.score::text, s.note) OR l.response_id IS DISTINCT FROM s.source_id LIMIT 10',
            relation, CASE relation WHEN 'mood_north' THEN 'payload->>''site'' = ''N''' ELSE 'true' END, relation);
    END LOOP;
    RETURN QUERY
        SELECT format('mood_long, response %s, item %s: put in %s, stored %s', coalesce(l.response_id, s.source_id), coalesce(l.key, s.item), l.value IS NOT NULL, s.value IS NOT NULL)
        FROM (SELECT response_id, e.key, e.value FROM loaded, jsonb_each_text(payload) e WHERE form = 'MOOD') l
        FULL JOIN mood_long s ON s.source_id = l.response_id AND s.item = l.key
        WHERE l.value IS DISTINCT FROM s.value LIMIT 10;
    -- there, or still to be sent there; what was changed here after it had
    -- arrived there, while the commit here failed, is as it was
    RETURN QUERY
        SELECT format('the other server, response %s: put in %s, there %s times', coalesce(l.response_id, s.source_id), l.response_id IS NOT NULL, coalesce(s.n, 0))
        FROM (SELECT * FROM loaded WHERE form = 'MOOD' AND (payload->>'severity')::int >= 2) l
        FULL JOIN (SELECT source_id, min(site) AS site, min(severity) AS severity, min(score) AS score, min(note) AS note, count(*) AS n
                   FROM (SELECT source_id, site, severity, score, note FROM mood_far
                         UNION ALL SELECT (r->>'source_id')::bigint, r->>'site', (r->>'severity')::int, (r->>'score')::int, r->>'note'
                         FROM (SELECT "row" AS r FROM epro_etl.outbox) o) x
                   GROUP BY source_id) s ON s.source_id = l.response_id
        WHERE (coalesce(s.n, 0) <> 1 AND l.response_id IS NOT NULL)
           OR s.n > 1
           OR ((l.payload->>'site', l.payload->>'severity', l.payload->>'score', l.payload->>'note')
               IS DISTINCT FROM (s.site, s.severity::text, s.score::text, s.note)
               AND NOT EXISTS (SELECT FROM changed c WHERE c.response_id = s.source_id))
        LIMIT 10;
    -- a subject's key is its own
    RETURN QUERY
        SELECT format('subjects %s have keys %s', array_agg(DISTINCT l.subject), array_agg(DISTINCT s.subject_key))
        FROM loaded l JOIN (SELECT source_id, subject_key FROM mood_wide UNION ALL SELECT source_id, subject_key FROM mood_long
                            UNION ALL SELECT source_id, subject_key FROM ae_wide) s ON s.source_id = l.response_id
        GROUP BY l.subject HAVING count(DISTINCT s.subject_key) <> 1 LIMIT 10;
    DROP TABLE loaded;

    RETURN QUERY
        SELECT format('run %s claimed %s = loaded %s + rejected %s + duplicate %s + deferred %s does not hold',
                      run_id, claimed, h.loaded, rejected, duplicate, deferred)
        FROM epro_etl.run_history h WHERE claimed <> h.loaded + rejected + duplicate + deferred LIMIT 10;
    RETURN QUERY
        SELECT format('run %s loaded %s by its ledger and %s by the sinks', h.run_id, h.loaded, count(l.run_id))
        FROM epro_etl.run_history h LEFT JOIN (SELECT run_id FROM mood_wide UNION ALL SELECT run_id FROM ae_wide) l USING (run_id)
        GROUP BY h.run_id, h.loaded HAVING count(l.run_id) <> h.loaded LIMIT 10;
    RETURN QUERY
        SELECT format('run %s rejected %s by its ledger and %s by quarantine', h.run_id, h.rejected + h.duplicate, count(q.run_id))
        FROM epro_etl.run_history h LEFT JOIN epro_etl.quarantine q USING (run_id)
        GROUP BY h.run_id, h.rejected, h.duplicate HAVING count(q.run_id) <> h.rejected + h.duplicate LIMIT 10;
    RETURN QUERY
        SELECT format('response %s of run %s is in quarantine without a reason', q.source_id, q.run_id)
        FROM epro_etl.quarantine q
        LEFT JOIN (SELECT DISTINCT run_id, coalesce(source_id, '') AS id FROM epro_etl.finding WHERE severity = 'error') f
            ON f.run_id = q.run_id AND f.id = coalesce(q.source_id, '')
        WHERE f.run_id IS NULL LIMIT 10;
END \$\$;
SQL

# The gate on the other server: who inserts or commits a row with a score that
# is closed waits for whoever holds the lock.
my $there = <<"SQL";
CREATE EXTENSION pg_stat_statements;
CREATE TABLE mood_far ($columns, PRIMARY KEY (source_id));
CREATE TABLE at_commit (score int, does text);
CREATE FUNCTION on_commit() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS \$\$
DECLARE
    what text;
BEGIN
    SELECT does INTO what FROM at_commit a WHERE a.score = NEW.score;
    IF what = 'wait' THEN
        PERFORM pg_advisory_xact_lock_shared(79, NEW.score);
    ELSIF what = 'die' THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    ELSIF what = 'refuse' THEN
        RAISE check_violation USING MESSAGE = 'not ' || NEW.note;
    END IF;
    RETURN NULL;
END \$\$;
CREATE CONSTRAINT TRIGGER on_commit AFTER INSERT ON mood_far DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION on_commit();
CREATE TABLE at_insert (score int);
CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS \$\$
BEGIN
    IF EXISTS (SELECT FROM at_insert a WHERE a.score = NEW.score) THEN
        PERFORM pg_advisory_xact_lock_shared(80, NEW.score);
    END IF;
    RETURN NULL;
END \$\$;
CREATE TRIGGER on_insert AFTER INSERT ON mood_far FOR EACH ROW EXECUTE FUNCTION on_insert();
SQL

# The second server, started.
sub create_far
{
	my ($name) = @_;
	my $far = PostgreSQL::Test::Cluster->new($name);

	$far->init(extra => [ '-E', 'UTF8', '--locale', 'C' ]);
	$far->append_conf('postgresql.conf', <<'CONF');
max_connections = 40
restart_after_crash = on
log_statement = 'none'
wal_level = replica
max_wal_senders = 2
shared_preload_libraries = 'pg_stat_statements'
timezone = 'UTC'
CONF
	$far->start;
	$far->safe_psql('postgres', $there);
	return $far;
}

# Forms, pipeline and sinks in a node; the other server's comes with link_far().
sub create_flow
{
	my ($node, $far) = @_;
	my ($host, $port) = ($far->host, $far->port);

	$node->safe_psql('postgres', $here . <<"SQL");
SELECT epro_etl.register_form('MOOD', '{"type": "object", "properties": {
    "site": {"type": "string"}, "severity": {"type": "integer", "minimum": 0, "maximum": 3},
    "score": {"type": "integer"}, "note": {"type": "string"}}}');
SELECT epro_etl.register_form('AE', '{"type": "object", "properties": {"note": {"type": "string"}}}');
SELECT epro_etl.create_pipeline('flow', 'staging', '{"id": "response_id"}');
SELECT epro_etl.add_sink('flow', 'MOOD', 'mood_wide');
SELECT epro_etl.add_sink('flow', 'MOOD', 'mood_long', shape => 'long');
SELECT epro_etl.add_sink('flow', 'MOOD', 'mood_north', condition => \$\$site = 'N'\$\$);
SELECT epro_etl.add_sink('flow', 'AE', 'ae_wide');
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host '$host', port '$port', dbname 'postgres', batch_size '100', fetch_size '10000', connect_timeout '2', options '-c client_min_messages=error');
CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'postgres');
CREATE FOREIGN TABLE mood_far ($columns) SERVER far OPTIONS (table_name 'mood_far');
SQL
	return;
}

# Makes the other server's table a sink, anew: link_far(SESSION, "required =>
# false, on_duplicate => 'reject'").
sub link_far
{
	my ($session, $with) = @_;

	$with = "on_duplicate => 'ignore'" unless defined $with;
	$session->query(q{SELECT epro_etl.remove_sink('flow', 'MOOD', 'mood_far') FROM epro_etl.sink WHERE target = 'mood_far'::regclass});
	$session->query(qq{SELECT epro_etl.add_sink('flow', 'MOOD', 'mood_far', condition => 'severity >= 2', $with)});
	return;
}

sub put
{
	my ($session, $first, $last, $more) = @_;
	$more = defined $more ? ", '$more'" : '';
	$session->query("SELECT put($first, $last$more)");
	return;
}

# Everything as it was before the first run, on both servers.
sub flow_anew
{
	my ($session, $there, $with) = @_;

	$session->query('TRUNCATE staging, put_in, changed, mood_wide, mood_north, mood_long, ae_wide, epro_etl.quarantine, epro_etl.finding,'
		  . ' epro_etl.outbox, epro_etl.run_worker, epro_etl.run_ledger, epro_etl.requeued');
	$there->query('SELECT pg_advisory_unlock_all(); TRUNCATE mood_far, at_commit, at_insert');
	link_far($session, $with);
	return;
}

sub begin_stream
{
	my ($session, $stages) = @_;

	$stages = defined $stages ? "'$stages'" : 'NULL';
	$session->query("SELECT epro_etl.start_stream('flow', $stages)");
	return flow_is($session, q{state = 'running' AND workers = workers_wanted});
}

# Waits for a condition on the stream, as stat_stream shows it.
sub flow_is
{
	my ($session, $condition) = @_;
	return until_true($session, "SELECT coalesce((SELECT $condition FROM epro_etl.stat_stream WHERE pipeline = 'flow'), false)");
}

sub flow_shows
{
	my ($session, $columns) = @_;
	return $session->query("SELECT concat_ws('|', $columns) FROM epro_etl.stat_stream WHERE pipeline = 'flow'");
}

# Waits until staging is empty and nothing is to be sent any more.
sub settled
{
	my ($session) = @_;
	return until_true($session, 'SELECT NOT EXISTS (SELECT FROM staging) AND NOT EXISTS (SELECT FROM epro_etl.outbox WHERE refused IS NULL)');
}

sub end_stream
{
	my ($session, $name, $drain) = @_;

	$drain = defined $drain ? ", drain => $drain" : '';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->query("SELECT epro_etl.stop_stream('flow'$drain)"), 't', "$name: stopped");
	# the leader says that it ends, and then ends
	return ok(until_true($session, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type IN ('epro_etl stream', 'epro_etl stage worker')}, 0),
		"$name: no process is left");
}

# A session on the other server.
sub far_session
{
	my ($far) = @_;
	return EproTest::Psql->new($far, name => 'look');
}

# One assertion: the oracle, on every sink.
sub sinks_ok
{
	my ($session, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($session->query('SELECT * FROM wrong()'), '', "oracle of every sink: $name");
}

# A session on a server that may be starting just now; dies if it does not come.
sub reach
{
	my ($node) = @_;
	my $end = time() + $EproTest::PATIENCE;

	while (time() < $end)
	{
		my $session = eval { EproTest::Psql->new($node) };
		return $session if $session;
		sleep(0.1);
	}
	die 'server ' . $node->name . " cannot be reached\n";
}

# What a server has logged from an offset on.
sub log_since
{
	my ($node, $offset) = @_;
	return substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $offset);
}

# Inserts that the other server was sent: "calls|rows".
sub far_statements
{
	my ($there) = @_;
	return $there->query(q{SELECT concat_ws('|', coalesce(sum(calls), 0), coalesce(sum(rows), 0)) FROM pg_stat_statements WHERE query LIKE 'INSERT INTO public.mood_far%'});
}

1;
