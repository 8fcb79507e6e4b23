# Sources and sinks that are not what they were, or not as simple as they look:
# dropped, renamed, moved or altered, before a run or between two of its chunks;
# with triggers, keys, policies, partitions. Nothing is lost, the error says
# what to do, and what a constraint refuses is one response. What the refused
# rows hold is found in no log, finding, ledger or error.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

# In no other text of this test: what is found of it, in whatever case, has leaked. A query that
# could fail must not hold it, since the server logs the statement of an error.
my $marker = 'Zq7Planted';

my $node = create_node('relations', conf => "log_min_messages = debug1\nlog_min_error_statement = error\n");
create_fixture($node, gates => 0);
my $look = observer($node);
my $one = EproTest::Psql->new($node);
my $two = EproTest::Psql->new($node);

# columns of a sink that are the same whatever the run
my $columns = 'source_id, study, subject_key, form, form_version, visit, authored, mood01, mood02, note';
my $sink_columns = 'source_id bigint NOT NULL, study text, subject_key text NOT NULL, form text NOT NULL, form_version text NOT NULL,'
  . ' visit text, authored timestamptz, mood01 int, mood02 int, note text, run_id bigint NOT NULL, loaded_at timestamptz NOT NULL';
$look->query(q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE TG_OP WHEN ''DELETE'' THEN OLD ELSE NEW END; END'});
$look->query('CREATE ROLE loader LOGIN; GRANT USAGE ON SCHEMA epro_etl TO loader; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO loader');

gone_before();
moved_before();
altered_before();
altered_during();
swapped_names();
new_version_during();
dropped_extension();
same_rows();
constraints();
planted();

$_->close foreach ($look, $one, $two);
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/, 'no process crashed');
done_testing();

# Source, pipeline and sink as new. sink => DDL of a sink named mood_sink;
# gates => its trigger; slow_source => a source that is claimed by SQL.
sub anew
{
	my (%args) = @_;

	$look->query('DELETE FROM epro_etl.pipeline; DROP TABLE IF EXISTS mood_sink, staging, staging_old, sink_old, allowed CASCADE;'
		  . ' DROP SCHEMA IF EXISTS elsewhere CASCADE; DROP DOMAIN IF EXISTS good_note');
	$look->query('CREATE TABLE staging (extra int DEFAULT 5, response_id bigint PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb)');
	$look->query('CREATE OR REPLACE FUNCTION stage(first bigint, last bigint, bad int DEFAULT 0) RETURNS void LANGUAGE sql AS $$
		WITH made AS (
			INSERT INTO staging (response_id, study, form, subject, visit, authored, payload)
			SELECT g, \'ST01\', \'MOOD\', \'S-\' || (g % 97), \'V\' || (g % 5), \'2026-01-01 08:00+00\'::timestamptz + g * interval \'1 minute\',
			       jsonb_build_object(\'mood01\', CASE WHEN bad > 0 AND g % bad = 0 THEN 9 ELSE g % 4 END, \'mood02\', g % 3, \'note\', \'note of \' || g)
			FROM generate_series(first, last) g RETURNING response_id, payload)
		INSERT INTO put_in (response_id, payload) SELECT response_id, payload FROM made $$');
	$look->query('TRUNCATE put_in, gate, epro_etl.quarantine, epro_etl.finding, epro_etl.run_worker, epro_etl.run_ledger, epro_etl.requeued');
	$look->query(q{SELECT epro_etl.create_pipeline('mood', 'staging', '{"id": "response_id"}')});
	if ($args{sink})
	{
		$look->query($args{sink});
		$look->query(q{SELECT epro_etl.add_sink('mood', 'MOOD', 'mood_sink')});
	}
	else
	{
		$look->query(q{SELECT epro_etl.create_sink('mood', 'MOOD', 'mood_sink')});
	}
	$look->query('CREATE TRIGGER at_gate BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION at_gate()') if $args{gates};
	$look->query('CREATE TRIGGER nothing BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION nothing()') if $args{slow_source};
	stage($look, 1, $args{rows} || 600, 7) unless $args{empty};
	return;
}

# A run that must be refused before anything has moved, inline and by workers.
sub refused
{
	my ($name, $states, $hint, %args) = @_;

	foreach my $workers (0, 2)
	{
		my ($out, $error) = $one->try("SELECT status FROM epro_etl.run('mood', workers => $workers)");
		like(sqlstate($error), $states, "$name, $workers workers: refused");
		like($error, qr/HINT:  .*$hint/, "$name, $workers workers: the hint says what to do");
		unlike($error, qr/note of/, "$name, $workers workers: no answer in the error");
	}
	is(survivors($look), 0, "$name: no worker survived");
	return;
}

sub gone_before
{
	anew();
	$look->query('ALTER TABLE staging RENAME TO kept; CREATE TABLE staging AS TABLE kept');
	$look->query(q{UPDATE epro_etl.pipeline SET source = 'staging'; DROP TABLE kept});
	$look->query('CREATE TABLE kept AS TABLE staging; DROP TABLE staging');
	refused('source dropped', qr/^42P01$/, 'create_pipeline');
	oracle_ok($look, 'source dropped', sources => ['kept']);
	$look->query('DROP TABLE kept');

	anew();
	$look->query('CREATE TABLE kept (LIKE mood_sink); DROP TABLE mood_sink');
	refused('sink dropped', qr/^42P01$/, 'remove_sink');
	oracle_ok($look, 'sink dropped', sinks => ['kept']);
	$look->query('DROP TABLE kept');

	anew();
	$look->query(q{SELECT epro_etl.drop_pipeline('mood')});
	refused('pipeline dropped', qr/^42704$/, 'create_pipeline');
	oracle_ok($look, 'pipeline dropped');
	return;
}

# The configuration names relations, not their names.
sub moved_before
{
	foreach my $gates (0, 1)
	{
		foreach my $slow (0, 1)
		{
			my $kind = ($slow ? 'source with a trigger' : 'plain source') . ', ' . ($gates ? 'sink with a trigger' : 'plain sink');
			foreach my $workers (0, 2)
			{
				my $name = "$kind, $workers workers";

				anew(gates => $gates, slow_source => $slow);
				$look->query('ALTER TABLE staging RENAME TO staging_old; ALTER TABLE mood_sink RENAME TO sink_old');
				is($one->query("SELECT status, claimed FROM epro_etl.run('mood', workers => $workers)"), 'succeeded|600', "renamed, $name: goes on");
				oracle_ok($look, "renamed, $name", sources => ['staging_old'], sinks => ['sink_old']);

				anew(gates => $gates, slow_source => $slow);
				$look->query('CREATE SCHEMA elsewhere; ALTER TABLE staging SET SCHEMA elsewhere; ALTER TABLE mood_sink SET SCHEMA elsewhere');
				is($one->query("SELECT status, claimed FROM epro_etl.run('mood', workers => $workers)"), 'succeeded|600', "moved, $name: goes on");
				oracle_ok($look, "moved, $name", sources => ['elsewhere.staging'], sinks => ['elsewhere.mood_sink']);
			}
		}
	}
	return;
}

sub altered_before
{
	foreach my $change (
		[ 'ALTER TABLE mood_sink DROP COLUMN note', qr/^EP006$/, '' ],
		[ 'ALTER TABLE mood_sink RENAME note TO remark', qr/^EP006$/, '' ],
		[ 'ALTER TABLE mood_sink ALTER mood02 TYPE date USING NULL', qr/^42804$/, 'another column' ],
		[ 'ALTER TABLE mood_sink ALTER loaded_at TYPE text', qr/^42804$/, 'another column' ],
		[ 'ALTER TABLE staging DROP COLUMN payload CASCADE', qr/^42703$/, 'altered' ],
		[ 'ALTER TABLE staging RENAME subject TO who', qr/^42703$/, 'altered' ],
		[ 'ALTER TABLE staging ALTER payload TYPE bigint USING 1', qr/^42804$/, 'jsonb' ],
		[ 'ALTER TABLE staging ALTER authored TYPE text', qr/^42804$/, 'timestamptz' ])
	{
		my ($ddl, $states, $hint) = @$change;
		anew();
		$look->query($ddl);
		refused($ddl, $states, $hint);
		oracle_ok($look, $ddl);
		is($look->query('SELECT count(*) FROM staging'), 600, "$ddl: nothing moved");
	}

	# a column that nothing fills and must not be null refuses every response
	foreach my $workers (0, 2)
	{
		anew();
		$look->query('ALTER TABLE mood_sink ADD COLUMN site text NOT NULL');
		is($one->query("SELECT status, loaded, rejected FROM epro_etl.run('mood', workers => $workers)"), 'succeeded|0|600',
			"column added NOT NULL, $workers workers: all are rejected");
		is($look->query(q{SELECT count(*) FROM epro_etl.finding WHERE kind = 'constraint' AND message LIKE '%"site"%'}), 600 - 85,
			"column added NOT NULL, $workers workers: the findings name it");
		oracle_ok($look, "column added NOT NULL, $workers workers");
		$look->query('ALTER TABLE mood_sink ALTER site SET DEFAULT 7');
		$look->query(q{SELECT epro_etl.requeue('mood', rule => '23502')});
		is($one->query("SELECT status, loaded FROM epro_etl.run('mood', workers => $workers)"), 'succeeded|515', "with a default, $workers workers: they load");
		is($look->query(q{SELECT count(*) FROM mood_sink WHERE site = '7'}), 515, "with a default, $workers workers: and have it");
	}
	return;
}

# One worker stands in its first chunk; the DDL waits for that chunk's locks and
# comes before the second. Returns psql's output and error output of the run.
sub ddl_between_chunks
{
	my ($name, $ddl) = @_;

	close_gate($look, 25);
	$one->send(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 1)});
	ok(await_gate($look), "$name: the worker is in its chunk");
	$two->send($ddl);
	ok(until_true($look, 'SELECT count(*) FROM pg_locks WHERE pid = ' . $two->backend . ' AND NOT granted', 1), "$name: the change waits");
	open_gates($look);
	my (undef, $refused) = $two->wait;
	is($refused =~ /ERROR/ ? $refused : '', '', "$name: the change is made");
	my @told = $one->wait;
	is(survivors($look), 0, "$name: no worker survived");
	unlike($told[1], qr/note of/, "$name: no answer in the error");
	return @told;
}

sub altered_during
{
	my %goes_on = map { $_ => 1 } qw(renamed moved trigger);

	foreach my $slow (0, 1)
	{
		my $source = $slow ? 'source with a trigger' : 'plain source';
		foreach my $change (
			[ 'sink: column dropped', 'ALTER TABLE mood_sink DROP COLUMN note', 'refused' ],
			[ 'sink: type changed', 'ALTER TABLE mood_sink ALTER mood02 TYPE date USING NULL', 'refused' ],
			[ 'sink: type widened', 'ALTER TABLE mood_sink ALTER mood02 TYPE bigint', 'succeeded' ],
			[ 'sink: NOT NULL column added', q{BEGIN; TRUNCATE mood_sink; ALTER TABLE mood_sink ADD COLUMN site text NOT NULL; COMMIT}, 'truncated' ],
			[ 'sink: nullable column added', 'ALTER TABLE mood_sink ADD COLUMN site text', 'succeeded' ],
			[ 'sink: renamed', 'ALTER TABLE mood_sink RENAME TO sink_old', 'succeeded', sinks => ['sink_old'] ],
			[ 'sink: moved', 'CREATE SCHEMA elsewhere; ALTER TABLE mood_sink SET SCHEMA elsewhere', 'succeeded', sinks => ['elsewhere.mood_sink'] ],
			[ 'sink: trigger dropped', 'DROP TRIGGER at_gate ON mood_sink', 'succeeded' ],
			[ 'sink: dropped', 'DROP TABLE mood_sink', 'dropped' ],
			[ 'source: renamed', 'ALTER TABLE staging RENAME TO staging_old', 'succeeded', sources => ['staging_old'] ],
			[ 'source: moved', 'CREATE SCHEMA elsewhere; ALTER TABLE staging SET SCHEMA elsewhere', 'succeeded', sources => ['elsewhere.staging'] ],
			[ 'source: column of no role dropped', 'ALTER TABLE staging DROP COLUMN extra', 'either' ],
			[ 'source: column of no role changed', q{ALTER TABLE staging ALTER extra TYPE text USING 'x'}, 'either' ],
			[ 'source: column of no role added', 'ALTER TABLE staging ADD COLUMN more int', 'either' ],
			[ 'source: payload becomes text', 'ALTER TABLE staging ALTER payload TYPE text', 'either' ],
			[ 'source: id becomes text', 'ALTER TABLE staging ALTER response_id TYPE text', 'either', restore => 'ALTER TABLE staging ALTER response_id TYPE bigint USING response_id::bigint' ],
			[ 'source: subject dropped', 'ALTER TABLE staging DROP COLUMN subject', 'refused' ],
			[ 'source: trigger added', 'CREATE TRIGGER another BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION nothing()', 'either' ],
			[ 'source: triggers dropped', 'DROP TRIGGER nothing ON staging', 'either' ],
			[ 'source: dropped', 'DROP TABLE staging', 'dropped' ])
		{
			my ($what, $ddl, $expected, %where) = @$change;
			my $name = "$what during the run, $source";
			my ($out, $error);

			next if $what eq 'source: triggers dropped' && !$slow;
			anew(gates => 1, slow_source => $slow);
			# a dropped column makes numbers of columns and places in a row differ
			$look->query('ALTER TABLE staging ADD COLUMN gone text; ALTER TABLE staging DROP COLUMN extra; ALTER TABLE staging ADD COLUMN extra int')
			  if $what eq 'source: trigger added';
			($out, $error) = ddl_between_chunks($name, $ddl);
			if ($expected eq 'succeeded')
			{
				is($out, 'succeeded|600', "$name: the run goes on") or diag($error);
			}
			elsif ($expected eq 'either')
			{
				# refusing is well, going on is well, misreading is not
				ok($out eq 'succeeded|600' || sqlstate($error) =~ /^(?:EP006|42703|42804)$/, "$name: the run goes on or is refused")
				  or diag("$out\n$error");
				is($look->query(q{SELECT count(*) FROM mood_sink k JOIN put_in p ON p.response_id::text = k.source_id::text
					WHERE k.note IS DISTINCT FROM p.payload ->> 'note' OR k.visit IS DISTINCT FROM 'V' || (p.response_id % 5)}), 0, "$name: no answer is misread");
				is($look->query(q{SELECT count(*) FROM epro_etl.finding WHERE rule <> 'maximum'}), 0, "$name: no response is rejected for it");
			}
			elsif ($expected eq 'refused' || $expected eq 'dropped')
			{
				like(sqlstate($error), qr/^(?:EP006|42703|42804|42P01)$/, "$name: the run is refused") or diag("$out\n$error");
				like($error, qr/HINT:/, "$name: and says what to do");
				is(status_of($look), 'failed', "$name: status");
			}
			if ($expected eq 'truncated')
			{
				is($out, 'succeeded|600', "$name: the rest is rejected") or diag($error);
				is($look->query(q{SELECT count(*) FROM mood_sink}), 0, "$name: nothing is loaded any more");
				is($look->query(q{SELECT loaded + rejected = 600 AND loaded BETWEEN 1 AND 514 FROM epro_etl.run_history}), 't', "$name: but the chunks before");
				next;
			}
			next if $expected eq 'dropped';
			$look->query($where{restore}) if $where{restore};
			oracle_ok($look, $name, %where);
		}
	}
	return;
}

# Another relation takes the old name: it is none of the pipeline's business.
sub swapped_names
{
	foreach my $gates (0, 1)
	{
		foreach my $slow (0, 1)
		{
			my $name = 'names swapped, ' . ($slow ? 'source with a trigger, ' : 'plain source, ') . ($gates ? 'sink with a trigger' : 'plain sink');

			# between two chunks: a sink without a trigger has no gate, so the
			# judging waits, in an edit check, of the first chunk only
			anew(gates => $gates, slow_source => $slow);
			$look->query(q{CREATE OR REPLACE FUNCTION judge_gate(id text) RETURNS boolean LANGUAGE plpgsql STABLE AS
				$$BEGIN IF id = 'note of 25' THEN PERFORM pg_advisory_xact_lock_shared(77, 25); END IF; RETURN true; END$$;
				SELECT epro_etl.add_edit_check('MOOD', 'gate', 'public.judge_gate(note)')});
			close_gate($look, 25);
			$one->send(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 1)});
			ok(await_gate($look), "$name: the worker judges its first chunk");
			# the chunk holds locks on source and sink: both swaps come right behind it
			$two->send('BEGIN; ALTER TABLE mood_sink RENAME TO sink_old; CREATE TABLE mood_sink (LIKE sink_old INCLUDING ALL); COMMIT;'
				  . ' BEGIN; ALTER TABLE staging RENAME TO staging_old; CREATE TABLE staging (LIKE staging_old);'
				  . ' INSERT INTO staging SELECT * FROM staging_old; UPDATE staging SET response_id = response_id + 100000; COMMIT');
			until_true($look, 'SELECT count(*) FROM pg_locks WHERE pid = ' . $two->backend . ' AND NOT granted', 1);
			open_gates($look);
			$two->wait;
			my ($out, $error) = $one->wait;
			is($look->query('SELECT count(*) FROM mood_sink'), 0, "$name: nothing goes to the other sink");
			is($look->query('SELECT count(*) FROM staging WHERE response_id <= 100000'), 0, "$name: the other source is what it was");
			is($look->query('SELECT count(*) FROM epro_etl.quarantine WHERE source_id::bigint > 100000'), 0, "$name: nothing of it is in quarantine");
			ok($out eq 'succeeded|600' || sqlstate($error) =~ /^(?:EP006|42P01)$/, "$name: the run goes on or is refused") or diag("$out\n$error");
			is(survivors($look), 0, "$name: no worker survived");
			oracle_ok($look, $name, sources => ['staging_old'], sinks => ['sink_old']);
			$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'gate')});
		}
	}
	return;
}

# A run is pinned to the versions of its beginning.
sub new_version_during
{
	my $name = 'new form version during the run';
	my $old;

	anew(gates => 1);
	$old = $look->query(q{SELECT version FROM epro_etl.form WHERE name = 'MOOD' ORDER BY form_id DESC LIMIT 1});
	close_gate($look, 25);
	$one->send(q{SELECT status, claimed, loaded FROM epro_etl.run('mood', workers => 1)});
	ok(await_gate($look), "$name: the worker is in its chunk");
	$two->query(q{SELECT epro_etl.register_form('MOOD', '{"type": "object", "properties": {
		"mood01": {"type": "integer", "maximum": 0}, "mood02": {"type": "integer"}, "note": {"type": "string"}}}')});
	$two->query(q{SELECT epro_etl.add_edit_check('MOOD', 'none', 'false')});
	# makes the worker compile again, and it must compile the same
	$two->query('CREATE OR REPLACE FUNCTION judge_gate(id text) RETURNS boolean LANGUAGE sql STABLE RETURN true');
	open_gates($look);
	is(($one->wait)[0], 'succeeded|600|515', "$name: the run keeps its own");
	is($look->query('SELECT DISTINCT form_version FROM mood_sink'), $old, "$name: so say the rows");
	is($look->query(q{SELECT versions #>> '{MOOD,version}' FROM epro_etl.run_history}), $old, "$name: and the ledger");
	oracle_ok($look, $name);
	$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'none')});
	stage($look, 1001, 1100, 0);
	is($one->query(q{SELECT status, claimed, loaded FROM epro_etl.run('mood', workers => 1)}), 'succeeded|100|25', "$name: the next run takes the new one");
	is($look->query(q{SELECT versions #>> '{MOOD,version}' = form_version FROM epro_etl.run_history, mood_sink WHERE mood_sink.run_id = run_history.run_id AND source_id > 1000 LIMIT 1}),
		't', "$name: so say ledger and rows");
	oracle_ok($look, "$name, next run");
	$look->query(q{SELECT epro_etl.register_form('MOOD', '{"type": "object", "required": ["mood01"], "properties": {
		"mood01": {"type": "integer", "minimum": 0, "maximum": 3}, "mood02": {"type": "integer"}, "note": {"type": "string"}}}', 'again')});
	return;
}

sub dropped_extension
{
	# The caller of run() has read the configuration, and DROP waits for it to
	# end; who has started a run and does not wait for it holds nothing.
	foreach my $call ('run', 'start_run')
	{
		my $name = "extension dropped during $call()";

		# nothing in quarantine: that goes with the extension, as its owner asked
		anew(gates => 1, empty => 1);
		stage($look, 1, 600, 0);
		close_gate($look, 25);
		$one->send("SELECT epro_etl.$call('mood', workers => 1)");
		ok(await_gate($look), "$name: the worker is in its chunk");
		$two->send('DROP EXTENSION epro_etl CASCADE');
		ok(until_true($look, 'SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = ' . $two->backend . q{)
			OR NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'epro_etl')}), "$name: it waits for locks, or is done");
		open_gates($look);
		my (undef, $dropped) = $two->wait;
		my (undef, $error) = $one->wait;
		unlike($dropped, qr/ERROR/, "$name: it is dropped");
		is($error, '', "$name: after the run") if $call eq 'run';
		ok(until_true($look, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker'}, 0), "$name: no worker survived");
		is($look->query('SELECT (SELECT count(*) FROM staging) + (SELECT count(*) FROM mood_sink)'), 600, "$name: nothing is lost");
		is($look->query('SELECT count(*) FROM staging JOIN mood_sink ON source_id = response_id'), 0, "$name: and nothing twice");
		cmp_ok($look->query('SELECT count(*) FROM staging'), '>', 0, "$name: the run could not go on") if $call eq 'start_run';
		# its counts are gone with the ledger
		$look->query('TRUNCATE mood_sink, put_in; DELETE FROM staging');
		again($name);
	}
	return;
}

sub again
{
	my ($name) = @_;

	$look->query('CREATE EXTENSION epro_etl; GRANT USAGE ON SCHEMA epro_etl TO loader; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO loader');
	$look->query(q{SELECT epro_etl.register_form('MOOD', '{"type": "object", "required": ["mood01"], "properties": {
		"mood01": {"type": "integer", "minimum": 0, "maximum": 3}, "mood02": {"type": "integer"}, "note": {"type": "string"}}}')});
	oracle_ok($look, $name);
	return;
}

# Whatever road a sink takes, it ends in the same rows.
sub same_rows
{
	my $plain;
	my $table = "CREATE TABLE mood_sink ($sink_columns";

	foreach my $kind (
		[ 'plain', "$table)" ],
		[ 'with indexes', "$table, PRIMARY KEY (source_id), UNIQUE (note)); CREATE INDEX ON mood_sink (lower(note)) WHERE mood01 > 1" ],
		[ 'with a trigger', "$table); CREATE TRIGGER nothing BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION nothing()" ],
		[ 'with a trigger a statement', "$table); CREATE TRIGGER nothing AFTER INSERT ON mood_sink EXECUTE FUNCTION nothing()" ],
		[ 'with a foreign key', "CREATE TABLE allowed (m int PRIMARY KEY); INSERT INTO allowed SELECT generate_series(0, 3); $table, FOREIGN KEY (mood01) REFERENCES allowed)" ],
		[ 'with a deferred key', "CREATE TABLE allowed (m int PRIMARY KEY); INSERT INTO allowed SELECT generate_series(0, 3); $table, FOREIGN KEY (mood01) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED)" ],
		[ 'with row security', "$table); ALTER TABLE mood_sink ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON mood_sink FOR INSERT TO loader WITH CHECK (mood01 < 9)" ],
		[ 'partitioned', "$table) PARTITION BY LIST (mood01); CREATE TABLE mood_low PARTITION OF mood_sink FOR VALUES IN (0, 1); CREATE TABLE mood_high PARTITION OF mood_sink DEFAULT" ],
		[ 'a partition', "CREATE TABLE allowed ($sink_columns) PARTITION BY RANGE (source_id); CREATE TABLE mood_sink PARTITION OF allowed FOR VALUES FROM (0) TO (100000)" ],
		[ 'with a generated column', "$table, twice int GENERATED ALWAYS AS (mood01 * 2) STORED)" ],
		[ 'with a check', "$table, CHECK (mood01 < 9))" ],
		[ 'with a check of its relation', "$table, CHECK (tableoid <> 0))" ],
		[ 'with defaults', "$table, n int GENERATED ALWAYS AS IDENTITY, more text DEFAULT 'x' || current_user NOT NULL)" ],
		[ 'a view', "CREATE TABLE allowed ($sink_columns); CREATE VIEW mood_sink AS SELECT * FROM allowed" ])
	{
		my ($name, $ddl) = @$kind;
		foreach my $workers (0, 2)
		{
			$look->query('DROP VIEW IF EXISTS mood_sink') if $look->query(q{SELECT count(*) FROM pg_class WHERE relname = 'mood_sink' AND relkind = 'v'});
			anew(sink => $ddl, rows => 300);
			$look->query('GRANT SELECT, DELETE, UPDATE ON staging TO loader; GRANT INSERT ON mood_sink TO loader');
			my $loader = EproTest::Psql->new($node, user => 'loader');
			my $run = "SELECT status, claimed, loaded, rejected FROM epro_etl.run('mood', workers => $workers)";
			my ($out, $error) = $loader->try($run);
			is($out, 'succeeded|300|258|42', "sink $name, $workers workers: run") or diag($error);
			$loader->close;
			my $rows = $look->query("SELECT $columns FROM mood_sink ORDER BY source_id");
			$plain = $rows unless defined $plain;
			ok($rows eq $plain, "sink $name, $workers workers: the same rows");
			is($look->query('SELECT count(*) FROM mood_sink WHERE twice = 2 * mood01'), 258, "sink $name, $workers workers: computed") if $ddl =~ /twice/;
			oracle_ok($look, "sink $name, $workers workers");
		}
	}
	$look->query('DROP VIEW mood_sink');
	return;
}

# What a constraint refuses is one response: the four that break it, in the
# middle and at the ends of chunks, and no other.
sub constraints
{
	my $table = "CREATE TABLE mood_sink ($sink_columns";
	my $raise = sub {
		my ($how) = @_;
		return 'CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.note = \'wrong\' THEN '
		  . "$how END IF; RETURN NEW; END\$\$";
	};
	my $note = 'CREATE TABLE allowed (n text PRIMARY KEY); INSERT INTO allowed SELECT \'note of \' || g FROM generate_series(1, 1000) g';
	my $keeps = q{; INSERT INTO mood_sink (source_id, subject_key, form, form_version, note, run_id, loaded_at) VALUES (9999, '', '', '', 'wrong', 0, now())};
	my %by = (mood02 => q{payload - 'mood02'}, note => q{jsonb_set(payload, '{note}', '"wrong"')});

	foreach my $kind (
		[ 'unique', "$table, CONSTRAINT refused UNIQUE (note))$keeps", 'refused', 'duplicate' ],
		[ 'unique, with a trigger', "$table, CONSTRAINT refused UNIQUE (note)); CREATE TRIGGER nothing BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION nothing()$keeps", 'refused', 'duplicate' ],
		[ 'deferred unique', "$table, CONSTRAINT refused UNIQUE (note) DEFERRABLE INITIALLY DEFERRED)$keeps", 'refused', 'duplicate' ],
		[ 'exclusion', "$table, CONSTRAINT refused EXCLUDE (note WITH =))$keeps", 'refused', 'duplicate' ],
		[ 'check', "$table, CONSTRAINT refused CHECK (note <> 'wrong'))", 'refused' ],
		[ 'domain', "CREATE DOMAIN good_note AS text CONSTRAINT refused CHECK (VALUE <> 'wrong'); " . ($table =~ s/note text/note good_note/r) . ')', undef ],
		[ 'not null', "$table); ALTER TABLE mood_sink ALTER mood02 SET NOT NULL", '23502', undef, 'mood02' ],
		[ 'not null, with a trigger', "$table); ALTER TABLE mood_sink ALTER mood02 SET NOT NULL; CREATE TRIGGER nothing BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION nothing()", '23502', undef, 'mood02' ],
		[ 'foreign key', "$note; $table, CONSTRAINT refused FOREIGN KEY (note) REFERENCES allowed)", 'refused' ],
		[ 'deferrable foreign key', "$note; $table, CONSTRAINT refused FOREIGN KEY (note) REFERENCES allowed DEFERRABLE)", 'refused' ],
		[ 'deferred foreign key', "$note; $table, CONSTRAINT refused FOREIGN KEY (note) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED)", 'refused' ],
		[ 'deferred foreign key of a partition', "$note; $table) PARTITION BY LIST (mood01); CREATE TABLE mood_any PARTITION OF mood_sink DEFAULT;"
			  . ' ALTER TABLE mood_any ADD CONSTRAINT refused FOREIGN KEY (note) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED', 'refused' ],
		[ 'no partition', "$table) PARTITION BY RANGE (note); CREATE TABLE mood_any PARTITION OF mood_sink FOR VALUES FROM ('a') TO ('o')", '23514' ],
		[ 'row security', "$table); ALTER TABLE mood_sink ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON mood_sink FOR INSERT TO loader WITH CHECK (note <> 'wrong')", '42501' ],
		[ 'an index row too large for its page', "$table); CREATE INDEX refused ON mood_sink ((CASE WHEN note = 'wrong' THEN (SELECT 1) END))", undef, 'skip' ],
		[ 'trigger RAISE', $raise->(q{RAISE EXCEPTION 'no';}) . "; $table); CREATE TRIGGER t BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION refuse()", 'P0001' ],
		[ 'trigger AFTER RAISE', $raise->(q{RAISE EXCEPTION 'no' USING ERRCODE = '23514', CONSTRAINT = 'refused';}) . "; $table); CREATE TRIGGER t AFTER INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION refuse()", undef ],
		[ 'trigger RETURN NULL', $raise->('RETURN NULL;') . "; $table); CREATE TRIGGER t BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION refuse()", '27000' ],
		[ 'deferred constraint trigger', $raise->(q{RAISE EXCEPTION 'no';}) . "; $table); CREATE CONSTRAINT TRIGGER t AFTER INSERT ON mood_sink DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()", 'P0001' ])
	{
		my ($name, $ddl, $rule, $count, $by) = @$kind;
		next if defined $count && $count eq 'skip';
		$count = 'rejected' unless defined $count;
		foreach my $workers (0, 2)
		{
			anew(sink => $ddl, rows => 300, empty => 1);
			$look->query('SELECT stage(1, 300)');
			$look->query('INSERT INTO put_in (response_id) VALUES (9999)') if $ddl =~ /9999/;
			$look->query("UPDATE staging SET payload = $by{$by || 'note'} WHERE response_id IN (1, 150, 151, 300)");
			$look->query('VACUUM FULL staging');
			$look->query('GRANT SELECT, DELETE, UPDATE ON staging TO loader; GRANT INSERT ON mood_sink TO loader');
			$look->query('GRANT SELECT ON allowed TO loader') if $ddl =~ /allowed/;
			my $loader = EproTest::Psql->new($node, user => 'loader');
			my ($out, $error) = $loader->try("SELECT status, claimed, loaded, $count FROM epro_etl.run('mood', workers => $workers)");
			is($out, 'succeeded|300|296|4', "$name, $workers workers: run") or diag($error);
			$loader->close;
			is($look->query(q{SELECT string_agg(source_id, ' ' ORDER BY source_id::int) FROM epro_etl.quarantine}), '1 150 151 300', "$name, $workers workers: those four");
			is($look->query(q{SELECT string_agg(DISTINCT rule, ' ') FROM epro_etl.finding}), $rule, "$name, $workers workers: the finding names it") if defined $rule;
			oracle_ok($look, "$name, $workers workers");
		}
	}

	# what the caller has left to be checked at its commit is the caller's
	anew(sink => "$note; $table, CONSTRAINT refused FOREIGN KEY (note) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED)", rows => 100);
	$look->query('INSERT INTO put_in (response_id) VALUES (9999)');
	$one->query("BEGIN$keeps");
	my ($out, $error) = $one->try(q{SELECT status, loaded, rejected FROM epro_etl.run('mood', workers => 0)});
	ok($out eq 'succeeded|86|14' || sqlstate($error) =~ /^(?:23503|EP006)$/, "a caller's own pending violation: no response is blamed for it") or diag("$out\n$error");
	if ($out ne '')
	{
		$one->query(q{INSERT INTO allowed VALUES ('wrong')});
		$one->query('COMMIT');
	}
	else
	{
		$one->query('ROLLBACK');
		$look->query('DELETE FROM put_in WHERE response_id = 9999');
	}
	oracle_ok($look, q{a caller's own pending violation});
	return;
}

# The marker is in the answers, in names of answers, in subject, visit and study
# of every response here; sinks, functions and rules do what they can to tell.
sub planted
{
	my $table = "CREATE TABLE mood_sink ($sink_columns";
	my $function = sub {
		my ($name, $type, $body) = @_;
		return "CREATE OR REPLACE FUNCTION $name RETURNS $type LANGUAGE plpgsql AS \$\$BEGIN $body END\$\$; ";
	};
	my $tell = sub {
		my ($how) = @_;
		return $function->('tell()', 'trigger', "IF NEW.source_id % 10 = 3 THEN $how END IF; RETURN NEW;")
		  . "$table); CREATE TRIGGER t BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION tell()";
	};
	my $source_trigger = sub {
		my ($using) = @_;
		return $function->('tell()', 'trigger', "RAISE EXCEPTION 'not %', OLD.payload USING DETAIL = OLD::text, HINT = OLD.subject$using; RETURN OLD;")
		  . 'CREATE TRIGGER t BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION tell()';
	};

	foreach my $kind (
		[ 'unique', "$table, UNIQUE (note))" ],
		[ 'exclusion', "$table, EXCLUDE (note WITH =))" ],
		[ 'check', "$table, CHECK (note = ''))" ],
		[ 'check that raises an error of data', "$table, CHECK (note::int > 0))" ],
		[ 'check that raises an error of names', "$table, CHECK (note::regtype IS NOT NULL))" ],
		[ 'index that raises an error', "$table); CREATE INDEX ON mood_sink ((note::int))" ],
		[ 'index row too large', "$table); CREATE INDEX ON mood_sink (repeat(note, 3000))", undef ],
		[ 'foreign key', "CREATE TABLE allowed (n text PRIMARY KEY); $table, FOREIGN KEY (note) REFERENCES allowed)" ],
		[ 'deferred foreign key', "CREATE TABLE allowed (n text PRIMARY KEY); $table, FOREIGN KEY (note) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED)" ],
		[ 'no partition', "$table) PARTITION BY LIST (note)" ],
		[ 'domain', "CREATE DOMAIN good_note AS text CHECK (VALUE = ''); " . ($table =~ s/note text/note good_note/r) . ')' ],
		[ 'column too short', ($table =~ s/note text/note varchar(3)/r) . ')' ],
		[ 'not null', "$table, site text NOT NULL)" ],
		[ 'trigger, message', $tell->(q{RAISE EXCEPTION 'not %', NEW.note USING DETAIL = NEW::text, HINT = NEW.visit;}) ],
		[ 'trigger, constraint', $tell->(q{RAISE EXCEPTION 'no' USING CONSTRAINT = NEW.note, COLUMN = NEW.visit;}) ],
		[ 'trigger, column', $tell->(q{RAISE EXCEPTION 'no' USING ERRCODE = '23502', COLUMN = NEW.note, TABLE = NEW.note, SCHEMA = NEW.note;}) ],
		[ 'trigger, syntax', $tell->(q{EXECUTE 'SELECT ' || NEW.note || ' x x';}) ],
		[ 'trigger, state of no data', $tell->(q{RAISE EXCEPTION 'not %', NEW.note USING ERRCODE = '55000', DETAIL = NEW::text, HINT = NEW.note;}) ],
		[ 'trigger, state of ours', $tell->(q{RAISE EXCEPTION 'not %', NEW.note USING ERRCODE = 'EP006', DETAIL = NEW::text, HINT = NEW.note;}) ],
		[ 'trigger, canceled', $tell->(q{RAISE EXCEPTION 'not %', NEW.note USING ERRCODE = '57014', DETAIL = NEW::text, HINT = NEW.note;}) ],
		[ 'trigger, serialization', $tell->(q{RAISE EXCEPTION 'not %', NEW.note USING ERRCODE = '40001', DETAIL = NEW::text, HINT = NEW.note;}) ],
		[ 'source trigger, message', "$table)", $source_trigger->('') ],
		[ 'source trigger, state of ours', "$table)", $source_trigger->(q{, ERRCODE = 'EP006'}) ],
		[ 'edit check, error of data', "$table)", q{SELECT epro_etl.add_edit_check('MOOD', 'told', 'note::int > 0')} ],
		[ 'edit check, error of names', "$table)", q{SELECT epro_etl.add_edit_check('MOOD', 'told', 'note::regtype IS NOT NULL')} ],
		[ 'edit check, function', "$table)", $function->('told(t text)', 'boolean STABLE', q{RAISE EXCEPTION 'not %', t USING ERRCODE = '42501', HINT = t;})
			  . q{SELECT epro_etl.add_edit_check('MOOD', 'told', 'public.told(note)')} ])
	{
		my ($name, $ddl, $more) = @$kind;

		foreach my $workers (0, 2)
		{
			anew(sink => $ddl, rows => 200, empty => 1);
			$look->query('SELECT stage(1, 200)');
			$look->query("UPDATE staging SET study = '$marker', subject = '$marker' || subject, visit = '$marker',"
				  . " payload = payload || jsonb_build_object('note', '$marker', '$marker', '$marker', 'mood02', CASE WHEN response_id % 50 = 0 THEN to_jsonb('$marker'::text) ELSE '1' END),"
				  . " form = CASE WHEN response_id % 70 = 0 THEN '$marker' ELSE form END");
			$look->query($more) if $more;
			my ($out, $error) = $one->try("SELECT status FROM epro_etl.run('mood', workers => $workers)");
			unlike($out . $error, qr/$marker/i, "planted, $name, $workers workers: not in what the client is told");
			foreach my $place ('epro_etl.finding', 'epro_etl.run_ledger', 'epro_etl.run_worker', 'epro_etl.run_history')
			{
				is($look->query("SELECT count(*) FROM $place t WHERE t::text ~* '$marker'"), 0, "planted, $name, $workers workers: not in $place");
			}
			if ($name =~ /^edit check/)
			{
				is($out, 'succeeded', "planted, $name, $workers workers: an error of a check is a finding");
				$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'told')});
			}
			oracle_ok($look, "planted, $name, $workers workers");
		}
	}

	# back into a staging table that refuses what it took before
	anew(rows => 100, empty => 1);
	$look->query('SELECT stage(1, 100)');
	$look->query("UPDATE staging SET subject = '$marker' || subject, payload = payload || jsonb_build_object('note', '$marker', 'mood01', 9)");
	$one->query(q{SELECT epro_etl.run('mood', workers => 0)});
	$look->query('ALTER TABLE staging ADD CONSTRAINT never CHECK (extra = 0)');
	my (undef, $error) = $one->try(q{SELECT epro_etl.requeue('mood')});
	like($error, qr/ERROR/, 'planted, requeue: refused');
	unlike($error, qr/$marker/i, 'planted, requeue: not in what the client is told');
	$look->query('ALTER TABLE staging DROP CONSTRAINT never; ALTER TABLE staging ADD COLUMN must int NOT NULL');
	(undef, $error) = $one->try(q{SELECT epro_etl.requeue('mood')});
	unlike($error, qr/$marker/i, 'planted, requeue, column added NOT NULL: not in what the client is told');
	oracle_ok($look, 'planted, requeue');

	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/$marker/i, 'planted: not in the server log');
	return;
}
