# What changes under a stream: forms, checks, sinks, tables, the pipeline, the
# extension, the database, the role. A change is not kept waiting, is taken over
# between two generations of which each is consistent, and what cannot go on
# says so and goes on when it can. Nothing is lost on the way.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = create_node('streamchange', conf => "epro_etl.naptime = '100ms'\ntrack_commit_timestamp = on\n");
create_fixture($node, gates => 0);
my $look = observer($node);
my $one = EproTest::Psql->new($node);
my $two = EproTest::Psql->new($node);

# longer than a chunk and a look at the configuration take, much shorter than for ever
use constant SOON => 5;

my @cuts = ([ 'not cut', undef ], [ 'five groups', '{"decode": 1, "deidentify": 2, "normalise": 1, "validate": 2, "store": 2}' ]);

# the columns of the fixture's sink
my $table = 'CREATE TABLE mood_sink (source_id bigint NOT NULL, study text, subject_key text NOT NULL, form text NOT NULL,'
  . ' form_version text NOT NULL, visit text, authored timestamptz, mood01 int, mood02 int, note text, run_id bigint NOT NULL, loaded_at timestamptz NOT NULL)';

parts('main', qw(
	versions checks sinks altered_source altered_sink renamed sink_dropped source_dropped truncated
	pipeline_dropped pipeline_made_anew role_dropped extension_dropped database_dropped));

$_->close foreach ($look, $one, $two);
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/, 'no process crashed');
done_testing();

# All as new: form, source, pipeline, one sink.
sub anew
{
	$look->query(q{DELETE FROM epro_etl.pipeline; DELETE FROM epro_etl.edit_check; DELETE FROM epro_etl.form});
	$look->query('DROP TABLE IF EXISTS mood_sink, staging, sink_old, staging_old, second_sink; TRUNCATE put_in, gate, epro_etl.quarantine, epro_etl.finding, epro_etl.run_worker, epro_etl.run_ledger, epro_etl.requeued');
	$look->query('CREATE TABLE staging (response_id bigint PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb)');
	$look->query(q{SELECT epro_etl.register_form('MOOD', '{"type": "object", "required": ["mood01"], "properties": {
		"mood01": {"type": "integer", "minimum": 0, "maximum": 3}, "mood02": {"type": "integer"}, "note": {"type": "string"}}}')});
	$look->query(q{SELECT epro_etl.create_pipeline('mood', 'staging', '{"id": "response_id"}')});
	$look->query($table);
	$look->query(q{SELECT epro_etl.add_sink('mood', 'MOOD', 'mood_sink')});
	return;
}

# A statement that must not wait for the stream.
sub soon
{
	my ($name, $sql) = @_;
	my $began = time();
	my ($out, $error) = $two->try($sql);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok(time() - $began, '<', SOON, "$name: it does not wait");
	unlike($error, qr/ERROR|FATAL/, "$name: it is done");
	return $out;
}

# Each of the named parts of a test, in each cut, with a writer in the background.
sub in_traffic
{
	my ($what, $do, %args) = @_;

	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		my $rows = 2000;
		$name = "$what, $name";

		anew();
		start_stream($one, $stages);
		my $writer = writer($node, 1, $rows, 7);
		ok(until_true($look, 'SELECT count(*) > 100 FROM mood_sink'), "$name: in traffic");
		my %at_end = $do->($name, $stages);
		$writer->wait;
		$writer->close;
		if (!$at_end{over})
		{
			ok(until_true($look, 'SELECT count(*) FROM ' . (($at_end{sources} || ['staging'])->[0]), 0), "$name: all has left");
			ok(await_stream($look, q{state = 'running'}), "$name: it runs");
			answers_ok($look, $name) if !$at_end{sinks};
			stop_stream_ok($one, $name);
		}
		oracle_ok($look, $name, %at_end);
	}
	return;
}

# Each row is of the version that its run was pinned to.
sub versions_ok
{
	my ($name, $n) = @_;
	my $wrong = $look->query(q{SELECT count(*) FROM mood_sink s JOIN epro_etl.run_ledger l USING (run_id)
		WHERE s.form_version IS DISTINCT FROM l.versions->'MOOD'->>'version'});

	is($wrong, 0, "$name: each row is of its run's version");
	is($look->query('SELECT count(DISTINCT form_version) FROM mood_sink'), $n, "$name: all versions were in use");
	return;
}

sub versions
{
	in_traffic('new version of a form', sub {
		my ($name) = @_;
		soon($name, q{SELECT epro_etl.register_form('MOOD', '{"type": "object", "required": ["mood01"], "properties": {
			"mood01": {"type": "integer", "minimum": 0, "maximum": 10}, "mood02": {"type": "integer"}, "note": {"type": "string"}}}')});
		ok(await_stream($look, q{generations = 2 AND state = 'running'}), "$name: taken over");
		# what was not right before is right by now
		my $bad = $look->query('SELECT count(*) FROM epro_etl.quarantine');
		$look->query('SELECT stage(10001, 10100, 2)');
		ok(until_true($look, 'SELECT count(*) FROM mood_sink WHERE source_id > 10000', 100), "$name: in use");
		versions_ok($name, 2);
		is($look->query(q{SELECT string_agg(status, ' ' ORDER BY run_id) FROM epro_etl.run_history}), 'succeeded running', "$name: a run each");
		return;
	});

	# many, one after another
	in_traffic('new versions', sub {
		my ($name) = @_;
		foreach my $i (4 .. 9)
		{
			soon($name, qq{SELECT epro_etl.register_form('MOOD', '{"type": "object", "required": ["mood01"], "properties": {
				"mood01": {"type": "integer", "minimum": 0, "maximum": $i}, "mood02": {"type": "integer"}, "note": {"type": "string"}}}')});
			sleep(0.05);
		}
		ok(await_stream($look, q{state = 'running' AND (SELECT versions->'MOOD'->>'form_id' = (SELECT max(form_id)::text FROM epro_etl.form) FROM epro_etl.run_ledger l WHERE l.run_id = stat_stream.run_id)}),
			"$name: the last is in use");
		my $wrong = $look->query(q{SELECT count(*) FROM mood_sink s JOIN epro_etl.run_ledger l USING (run_id)
			WHERE s.form_version IS DISTINCT FROM l.versions->'MOOD'->>'version'});
		is($wrong, 0, "$name: each row is of its run's version");
		return;
	});
	return;
}

sub checks
{
	in_traffic('new edit check', sub {
		my ($name) = @_;
		soon($name, q{SELECT epro_etl.add_edit_check('MOOD', 'low', 'mood02 <> 1', 'warning')});
		ok(await_stream($look, q{generations = 2 AND state = 'running'}), "$name: taken over");
		$look->query('SELECT stage(10001, 10100)');
		ok(until_true($look, q{SELECT count(*) FROM epro_etl.finding WHERE rule = 'low' AND source_id::int > 10000}, 33), "$name: in use") ;
		is($look->query(q{SELECT count(*) FROM mood_sink s JOIN epro_etl.run_ledger l USING (run_id) WHERE mood02 = 1 AND
			(jsonb_array_length(l.versions->'MOOD'->'edit_checks') = 1) <> EXISTS (SELECT FROM epro_etl.finding f WHERE f.run_id = s.run_id AND f.source_id = s.source_id::text AND rule = 'low')}),
			0, "$name: by the run, not by the response");
		soon("$name, removed", q{SELECT epro_etl.remove_edit_check('MOOD', 'low')});
		ok(await_stream($look, q{generations = 3 AND state = 'running'}), "$name, removed: taken over");
		return;
	});
	return;
}

sub sinks
{
	in_traffic('sink added and removed', sub {
		my ($name) = @_;
		soon($name, ($table =~ s/mood_sink/second_sink/r) . q{; SELECT epro_etl.add_sink('mood', 'MOOD', 'second_sink')});
		ok(await_stream($look, q{generations = 2 AND state = 'running'}), "$name: taken over");
		$look->query('SELECT stage(10001, 10100)');
		ok(until_true($look, 'SELECT count(*) FROM second_sink WHERE source_id > 10000', 100), "$name: in use");
		soon("$name, removed", q{SELECT epro_etl.remove_sink('mood', 'MOOD', 'second_sink')});
		ok(await_stream($look, q{generations = 3 AND state = 'running'}), "$name, removed: taken over");
		is($look->query(q{SELECT count(*) FROM mood_sink s JOIN epro_etl.run_ledger l USING (run_id) WHERE
			(jsonb_array_length(l.versions->'MOOD'->'sinks') = 2) <> EXISTS (SELECT FROM second_sink z WHERE z.run_id = s.run_id AND z.source_id = s.source_id)}),
			0, "$name: a response is in all sinks of its run");
		is($look->query('SELECT count(*) - count(DISTINCT source_id) FROM second_sink'), 0, "$name: once");
		return;
	});
	return;
}

sub altered_source
{
	in_traffic('source altered', sub {
		my ($name) = @_;
		soon("$name, column added", 'ALTER TABLE staging ADD COLUMN extra int DEFAULT 5');
		soon("$name, column dropped", 'ALTER TABLE staging DROP COLUMN extra');
		soon("$name, written anew", 'ALTER TABLE staging ALTER COLUMN response_id TYPE numeric');
		soon("$name, and back", 'ALTER TABLE staging ALTER COLUMN response_id TYPE bigint');
		soon("$name, unlogged", 'ALTER TABLE staging SET UNLOGGED');
		soon("$name, vacuumed", 'VACUUM FULL staging');
		soon("$name, trigger", q{CREATE OR REPLACE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
			CREATE TRIGGER nothing BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION nothing()});
		return;
	});

	# a column that a pipeline needs
	in_traffic('column of the source dropped', sub {
		my ($name) = @_;
		soon($name, 'ALTER TABLE staging RENAME COLUMN subject TO person');
		ok(await_stream($look, q{state = 'waiting' AND sqlstate = '42703' AND failures > 0}), "$name: it says so") or diag(stream_shows($look, 'state, sqlstate, message'));
		soon("$name, and back", 'ALTER TABLE staging RENAME COLUMN person TO subject');
		return;
	});
	return;
}

sub altered_sink
{
	in_traffic('sink altered', sub {
		my ($name) = @_;
		soon("$name, column added", 'ALTER TABLE mood_sink ADD COLUMN extra int DEFAULT 5');
		soon("$name, column dropped", 'ALTER TABLE mood_sink DROP COLUMN extra');
		soon("$name, type", 'ALTER TABLE mood_sink ALTER COLUMN note TYPE varchar(100)');
		soon("$name, index", 'CREATE INDEX ON mood_sink (note)');
		soon("$name, index without locks", 'CREATE INDEX CONCURRENTLY ON mood_sink (visit)');
		soon("$name, vacuumed", 'VACUUM FULL mood_sink');
		return;
	});

	in_traffic('column of the sink dropped', sub {
		my ($name) = @_;
		soon($name, 'ALTER TABLE mood_sink RENAME COLUMN mood02 TO m');
		ok(await_stream($look, q{state = 'waiting' AND failures > 0}), "$name: it says so");
		isnt(stream_shows($look, 'message'), '', "$name: and why");
		soon("$name, and back", 'ALTER TABLE mood_sink RENAME COLUMN m TO mood02');
		return;
	});
	return;
}

sub renamed
{
	in_traffic('renamed', sub {
		my ($name) = @_;
		soon($name, 'ALTER TABLE mood_sink RENAME TO sink_old; CREATE VIEW mood_sink AS SELECT * FROM sink_old');
		soon($name, 'DROP VIEW mood_sink; ALTER TABLE sink_old RENAME TO mood_sink');
		soon($name, q{BEGIN; ALTER TABLE staging RENAME TO staging_old; CREATE TABLE staging (LIKE staging_old INCLUDING ALL); COMMIT});
		ok(until_true($look, 'SELECT count(*) FROM staging_old', 0), "$name: the source goes by what it is, not by its name");
		# the new table is nobody's source
		soon($name, 'WITH moved AS (DELETE FROM staging RETURNING *) INSERT INTO staging_old SELECT * FROM moved');
		soon($name, q{BEGIN; LOCK TABLE staging IN ACCESS EXCLUSIVE MODE; INSERT INTO staging_old SELECT * FROM staging; DROP TABLE staging; ALTER TABLE staging_old RENAME TO staging; COMMIT});
		return;
	});
	return;
}

sub sink_dropped
{
	in_traffic('sink dropped', sub {
		my ($name) = @_;
		soon($name, 'CREATE TABLE sink_old AS TABLE mood_sink WITH NO DATA; BEGIN; LOCK TABLE mood_sink IN ACCESS EXCLUSIVE MODE; INSERT INTO sink_old SELECT * FROM mood_sink; DROP TABLE mood_sink; COMMIT');
		ok(await_stream($look, q{state = 'waiting' AND failures > 0 AND sqlstate = '42P01'}), "$name: it says so") or diag(stream_shows($look, 'state, sqlstate, message'));
		$two->query(qq{$table; BEGIN; SELECT epro_etl.remove_sink('mood', 'MOOD'); SELECT epro_etl.add_sink('mood', 'MOOD', 'mood_sink'); COMMIT});
		return (sinks => [ 'mood_sink', 'sink_old' ]);
	});
	return;
}

sub source_dropped
{
	in_traffic('source dropped', sub {
		my ($name) = @_;
		# the writer's rows go where there is a staging
		soon($name, q{CREATE TABLE staging_old AS TABLE staging WITH NO DATA;
			BEGIN; LOCK TABLE staging IN ACCESS EXCLUSIVE MODE; INSERT INTO staging_old SELECT * FROM staging; DROP TABLE staging; CREATE TABLE staging (LIKE staging_old INCLUDING ALL); COMMIT});
		ok(await_stream($look, q{state = 'waiting' AND failures > 0 AND sqlstate = '42P01'}), "$name: it says so") or diag(stream_shows($look, 'state, sqlstate, message'));
		stop_stream_ok($one, $name);
		is($look->query(q{SELECT count(*) FROM epro_etl.run_history WHERE status = 'failed' AND sqlstate = '42P01'} ) > 0 ? 't' : 'f', 't', "$name: the ledger says so") or diag($look->query('SELECT run_id, status, sqlstate, message FROM epro_etl.run_history'));
		return (over => 1, sources => [ 'staging', 'staging_old' ]);
	});
	return;
}

sub truncated
{
	in_traffic('sink truncated', sub {
		my ($name) = @_;
		soon($name, q{CREATE TABLE sink_old AS TABLE mood_sink WITH NO DATA; BEGIN; LOCK TABLE mood_sink IN ACCESS EXCLUSIVE MODE; INSERT INTO sink_old SELECT * FROM mood_sink; TRUNCATE mood_sink; COMMIT});
		return (sinks => [ 'mood_sink', 'sink_old' ]);
	});
	return;
}

sub pipeline_dropped
{
	in_traffic('pipeline dropped', sub {
		my ($name) = @_;
		soon($name, q{SELECT epro_etl.drop_pipeline('mood')});
		ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), "$name: the stream ends");
		is(stream_shows($look, 'state'), '', "$name: no stream is wanted");
		is($look->query('SELECT count(*) FROM epro_etl.stream_status()'), 0, "$name: no entry is left");
		like(status_of($look), qr/^(?:succeeded|stopped)$/, "$name: the ledger");
		return (over => 1);
	});
	return;
}

# Dropped and made anew in one transaction: it is another, without a stream.
sub pipeline_made_anew
{
	in_traffic('pipeline made anew', sub {
		my ($name, $stages) = @_;
		soon($name, q{BEGIN; SELECT epro_etl.drop_pipeline('mood'); SELECT epro_etl.create_pipeline('mood', 'staging', '{"id": "response_id"}');
			SELECT epro_etl.add_sink('mood', 'MOOD', 'mood_sink'); SELECT epro_etl.start_stream('mood', '{"validate": 1, "store": 1}'); COMMIT});
		ok(await_stream($look, q{state = 'running' AND workers = 2}), "$name: the new one runs");
		ok(until_true($look, 'SELECT count(*) FROM epro_etl.stream_status()', 1), "$name: the old one has ended");
		return;
	});
	return;
}

sub role_dropped
{
	$look->query(q{CREATE ROLE loader LOGIN; CREATE ROLE nurse});
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;

		# acting as a role of which one is no member any more
		$name = "membership revoked, $cut->[0]";
		anew();
		$look->query(q{GRANT USAGE ON SCHEMA epro_etl TO loader, nurse; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA epro_etl TO loader, nurse;
			GRANT SELECT, DELETE, UPDATE ON staging TO nurse; GRANT SELECT, INSERT ON mood_sink TO nurse; GRANT nurse TO loader});
		my $loader = EproTest::Psql->new($node, user => 'loader');
		$loader->query('SET ROLE nurse');
		$loader->query('SELECT epro_etl.start_stream(\'mood\', ' . (defined $stages ? "'$stages'" : 'NULL') . ')');
		stage($look, 1, 100, 7);
		ok(await_arrived($look, 100), "$name: it works");
		soon($name, 'REVOKE nurse FROM loader');
		stage($look, 101, 200, 7);
		# it may go on until its next start, not for ever
		$look->query(q{SELECT epro_etl.add_edit_check('MOOD', 'any', 'mood02 < 100')});
		ok(await_stream($look, q{state = 'waiting' AND failures > 0 AND sqlstate = '42501'}), "$name: it is to be seen");
		is($look->query(q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl stage worker'}), 0, "$name: nobody acts as the role any more");
		$look->query('GRANT nurse TO loader');
		ok(await_arrived($look, 200), "$name: it goes on by itself");
		stop_stream_ok($one, $name);
		oracle_ok($look, $name);
		$loader->close;

		# the role is dropped under it
		$name = "role dropped, $cut->[0]";
		anew();
		$look->query(q{CREATE ROLE gone LOGIN; GRANT USAGE ON SCHEMA epro_etl TO gone; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA epro_etl TO gone;
			GRANT SELECT, DELETE, UPDATE ON staging TO gone; GRANT SELECT, INSERT ON mood_sink TO gone});
		my $gone = EproTest::Psql->new($node, user => 'gone');
		$gone->query('SELECT epro_etl.start_stream(\'mood\', ' . (defined $stages ? "'$stages'" : 'NULL') . ')');
		stage($look, 1, 100, 7);
		ok(await_arrived($look, 100), "$name: it works");
		$gone->close;
		soon($name, 'DROP OWNED BY gone; DROP ROLE gone');
		stage($look, 101, 200, 7);
		ok(await_stream($look, q{state = 'waiting' AND failures > 0 AND sqlstate = '42501'}), "$name: it is to be seen");
		is($look->query(q{SELECT count(*) FROM mood_sink WHERE source_id > 100}), 0, "$name: nobody acts as the role any more");
		is($look->query('SELECT count(*) FROM staging'), 100, "$name: what came later is in staging");
		is($one->query(q{SELECT epro_etl.stop_stream('mood')}), 't', "$name: it can be stopped");
		is(stream_processes($look), 0, "$name: no process is left");
		ok(start_stream($one, $stages), "$name: and started as another");
		ok(await_arrived($look, 200), "$name: which does the rest");
		stop_stream_ok($one, "$name, as another");
		oracle_ok($look, $name);
	}
	return;
}

# Without CASCADE, although the source has the extension's trigger.
sub extension_dropped
{
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		$name = "extension dropped, $cut->[0]";

		anew();
		start_stream($one, $stages);
		my $writer = writer($node, 1, 2000, 7);
		ok(until_true($look, 'SELECT count(*) > 100 FROM mood_sink'), "$name: in traffic");
		# what is in its tables goes with it: keep it for the oracle
		soon($name, 'BEGIN; LOCK TABLE mood_sink, staging IN ACCESS EXCLUSIVE MODE; CREATE TABLE kept AS TABLE epro_etl.quarantine; DROP EXTENSION epro_etl; COMMIT');
		ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), "$name: no process is left");
		is($look->query(q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'staging'::regclass}), 0, "$name: no trigger is left");
		my (undef, $error) = $writer->wait;
		unlike($error, qr/ERROR/, "$name: who stages goes on");
		$writer->close;
		is($look->query(q{SELECT count(*) FROM (SELECT response_id FROM staging UNION ALL SELECT source_id FROM mood_sink UNION ALL SELECT source_id::bigint FROM kept) x
			FULL JOIN (SELECT response_id FROM put_in) i USING (response_id) WHERE x.response_id IS NULL OR i.response_id IS NULL}), 0, "$name: nothing is lost");
		is($look->query('SELECT (SELECT count(*) FROM staging) + (SELECT count(*) FROM mood_sink) + (SELECT count(*) FROM kept)'), 2000, "$name: nothing is twice");
		$look->query('DROP TABLE kept, staging, mood_sink; CREATE EXTENSION epro_etl');
		is($look->query('SELECT count(*) FROM epro_etl.stream_status()'), 0, "$name: no entry is left");
		anew();
		start_stream($one, $stages);
		stage($look, 1, 100);
		ok(await_arrived($look, 100), "$name: made anew, it works");
		stop_stream_ok($one, "$name, made anew");
		oracle_ok($look, "$name, made anew");
	}

	# dropped and made anew at once: no stream is wanted there
	anew();
	start_stream($one, undef);
	soon('extension made anew', 'BEGIN; DROP EXTENSION epro_etl; CREATE EXTENSION epro_etl; COMMIT');
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), 'extension made anew: no process is left');
	$look->query('DROP TABLE staging, mood_sink');
	return;
}

sub database_dropped
{
	foreach my $force ('', ' WITH (FORCE)')
	{
		foreach my $cut (@cuts)
		{
			my ($name, $stages) = @$cut;
			$name = "DROP DATABASE$force, $cut->[0]";
			$stages = defined $stages ? "'$stages'" : 'NULL';

			$look->query('CREATE DATABASE other');
			my $there = EproTest::Psql->new($node, dbname => 'other');
			$there->query(q{CREATE EXTENSION epro_etl;
				CREATE TABLE staging (response_id bigint PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload jsonb);
				SELECT epro_etl.register_form('MOOD', '{"type": "object", "properties": {"mood01": {"type": "integer"}}}');
				SELECT epro_etl.create_pipeline('mood', 'staging', '{"id": "response_id"}');
				SELECT epro_etl.create_sink('mood', 'MOOD', 'mood_sink')});
			$there->query("SELECT epro_etl.start_stream('mood', $stages)");
			$there->query(q{INSERT INTO staging SELECT g, 'ST01', 'MOOD', 'S', 'V', now(), '{"mood01": 1}' FROM generate_series(1, 1000) g});
			ok(until_true($there, 'SELECT count(*) > 0 FROM mood_sink'), "$name: it works");
			is($look->query('SELECT count(*) FROM epro_etl.stat_stream'), 0, "$name: not a stream of this database");
			$there->close;
			# the session may take a moment to go
			ok(until_true($look, q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'other' AND backend_type = 'client backend'}, 0), "$name: nobody else is there");
			soon($name, "DROP DATABASE other$force");
			ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), "$name: no process is left");
			is($look->query(q{SELECT count(*) FROM pg_database WHERE datname = 'other'}), 0, "$name: it is gone");
		}
	}

	# an entry in the registry is not lost with a database: there are only so many
	anew();
	ok(start_stream($one, undef), 'DROP DATABASE: another stream can be started');
	stage($look, 1, 100);
	ok(await_arrived($look, 100), 'DROP DATABASE: and works');
	stop_stream_ok($one, 'DROP DATABASE, another stream');
	oracle_ok($look, 'DROP DATABASE');
	return;
}
