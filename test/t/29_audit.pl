# The audit trail where processes are many, are lost, or are another server's: whatever happens, the chains are whole,
# a run has one record of its beginning and at most one of its end, and a dump takes all of it along.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

my $node = create_node('audit', init => { allows_streaming => 1 }, conf => "max_prepared_transactions = 5\n");
create_fixture($node);
my $look = observer($node);

parts(__PACKAGE__, qw(many_at_once prepared ended stream killed dumped standby));

$look->close;
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:/, 'no process crashed by itself');
done_testing();

# What verify_audit() finds, one string.
sub whole_ok
{
	my ($session, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($session->query('SELECT problem, object, detail FROM epro_etl.verify_audit()'), '', "$name: the audit trail is whole");
}

# Of the newest run: "begin,end", or what there is, and the status that it ended with.
sub records
{
	return $look->query(q{SELECT string_agg(action, ',' ORDER BY at), max(new_value ->> 'status') FROM epro_etl.audit_trail
		WHERE object = 'run_ledger' AND action IN ('begin', 'end') AND new_value ->> 'run_id' = (SELECT max(run_id)::text FROM epro_etl.run_ledger)});
}

# Sessions that configure, others that load with workers, into a sink where the latest stands; all at once.
sub many_at_once
{
	$look->query(<<'SQL');
CREATE TABLE newest (subject_key text PRIMARY KEY, source_id bigint, authored timestamptz, mood01 int, run_id bigint);
CREATE TABLE staging_2 (LIKE staging INCLUDING ALL);
SELECT epro_etl.create_pipeline('newest', 'staging_2', '{"id": "response_id"}');
SELECT epro_etl.add_sink('newest', 'MOOD', 'newest', on_duplicate => 'latest');
INSERT INTO staging_2 SELECT g, 'ST01', 'MOOD', 'S-' || (g % 97), 'V', '2026-01-01 08:00+00'::timestamptz + g * interval '1 minute', '{"mood01": 1}' FROM generate_series(1, 3000) g;
SQL
	stage($look, 1, 3000, 7);
	my @sessions = map { EproTest::Psql->new($node) } 1 .. 6;
	$sessions[$_]->send("CREATE TABLE IF NOT EXISTS unused_$_ (); DO \$\$ BEGIN FOR i IN 1 .. 60 LOOP
		INSERT INTO epro_etl.deid_profile (profile, category, method) VALUES ('p $_', 'dates', 'remove'); COMMIT;
		DELETE FROM epro_etl.deid_profile WHERE profile = 'p $_'; IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
		DELETE FROM epro_etl.deid_profile WHERE profile = 'p $_'; COMMIT; END LOOP; END \$\$") foreach 0 .. 3;
	$sessions[4]->send(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 3)});
	$sessions[5]->send(q{SELECT status, loaded FROM epro_etl.run('newest', workers => 3)});
	my @told = map { [ $_->wait ] } @sessions;
	is($told[4][0], 'succeeded|2572', 'many at once: one run');
	like($told[5][0], qr/^succeeded\|/, 'many at once: another');
	is(join('', map { $_->[1] } @told), '', 'many at once: no error');
	$_->close foreach @sessions;
	whole_ok($look, 'many at once');
	is($look->query(q{SELECT count(*) FROM epro_etl.audit_trail WHERE object = 'deid_profile'}), 480, 'many at once: a record for each change that was committed');
	is($look->query(q{SELECT string_agg(action, ',' ORDER BY action) FROM epro_etl.audit_trail WHERE object = 'run_ledger' AND action IN ('begin', 'end')}),
		'begin,begin,end,end', 'many at once: two records a run');
	is($look->query(q{SELECT sum((new_value ->> 'rows')::int) = (SELECT count(*) FROM epro_etl.superseded), count(*) < 200 FROM epro_etl.audit_trail WHERE action = 'overwrite'}),
		't|t', 'many at once: what was overwritten, a record a chunk');
	is($look->query('SELECT count(*) BETWEEN 2 AND 12, count(*) = max(slot) FROM epro_etl.audit_writer'), 't|t', 'many at once: few chains, for many sessions');
	return;
}

# A transaction that is prepared keeps its chain to itself until it ends.
sub prepared
{
	my $other = EproTest::Psql->new($node);

	$look->query(q{BEGIN; SELECT epro_etl.add_edit_check('MOOD', 'prepared', 'mood01 < 4'); PREPARE TRANSACTION 'audit'});
	$other->query(q{SELECT epro_etl.add_lookup('MOOD', 'not prepared', 'EXISTS (SELECT FROM public.put_in WHERE response_id > 0)'); SELECT epro_etl.remove_edit_check('MOOD', 'not prepared')});
	whole_ok($other, 'prepared');
	$node->restart;
	$_->close foreach ($look, $other);
	$look = observer($node);
	$look->query(q{SELECT epro_etl.register_form('OTHER', '{"properties": {"a": {"type": "integer"}}}')});
	$look->query(q{COMMIT PREPARED 'audit'});
	is($look->query(q{SELECT count(DISTINCT writer) FROM epro_etl.audit_trail WHERE new_value ->> 'check_name' IN ('prepared', 'not prepared')}), 2, 'prepared: in a chain of its own');
	$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'prepared')});
	whole_ok($look, 'prepared, and committed');
	return;
}

# Runs that are canceled, and that fail, have their end.
sub ended
{
	my $caller = EproTest::Psql->new($node);

	stage($look, 5001, 5600);
	close_gate($look, 5225);
	$caller->send(q{SELECT * FROM epro_etl.run('mood', workers => 1, reason => 'to be canceled')});
	ok(await_gate($look), 'ended: the worker is in a chunk');
	is(records(), 'begin|', 'ended: before its end a run has one record');
	$look->query('SELECT pg_cancel_backend(' . $caller->backend . ')');
	$caller->wait;
	is(records(), 'begin,end|canceled', 'ended: and another when it is canceled');
	open_gates($look);
	$look->query(q{ALTER TABLE mood_sink ADD CONSTRAINT never CHECK (false) NOT VALID});
	my ($out, $error) = $caller->try(q{SELECT * FROM epro_etl.run('mood', workers => 1, max_rejects => 3)});
	is(records(), 'begin,end|stopped', 'ended: stopped itself');
	$look->query(q{ALTER TABLE mood_sink DROP CONSTRAINT never; SELECT epro_etl.requeue('mood', rule => 'never'); SELECT status FROM epro_etl.run('mood', workers => 1)});
	is(records(), 'begin,end|succeeded', 'ended: by itself');
	whole_ok($look, 'ended');
	$caller->close;
	return;
}

# A generation is a run; who acts is whom the stream acts as.
sub stream
{
	$look->query(q{CREATE ROLE keeper LOGIN; GRANT USAGE ON SCHEMA epro_etl TO keeper; GRANT SELECT, DELETE, TRIGGER ON staging TO keeper; GRANT INSERT ON mood_sink TO keeper;
		GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO keeper});
	my $keeper = EproTest::Psql->new($node, user => 'keeper');
	$keeper->query(q{BEGIN; SELECT epro_etl.context_set('actor', 'the night shift'), epro_etl.context_set('reason', 'go live'); SELECT epro_etl.start_stream('mood'); COMMIT});
	stage($look, 7001, 7100);
	ok(until_true($look, 'SELECT NOT EXISTS (SELECT FROM staging)'), 'stream: it has loaded');
	is($keeper->query(q{SELECT epro_etl.stop_stream('mood')}), 't', 'stream: stopped');
	is(records(), 'begin,end|succeeded', 'stream: a generation has two records');
	is($look->query(q{SELECT DISTINCT session_user_name, current_user_name, actor FROM epro_etl.audit_trail t WHERE object = 'run_ledger' AND action IN ('begin', 'end')
			AND new_value ->> 'run_id' = (SELECT max(run_id)::text FROM epro_etl.run_ledger)}), 'keeper|keeper|the night shift', 'stream: they say who, and for whom');
	is($look->query(q{SELECT string_agg(concat_ws(' ', action, session_user_name, reason, actor), ', ' ORDER BY at) FROM epro_etl.audit_trail WHERE object = 'stream'}),
		'add keeper go live the night shift, remove keeper', 'stream: so do those of its start and stop');
	whole_ok($look, 'stream');
	$keeper->close;
	return;
}

# A server that lost a process: the run has no end, and nothing is broken.
sub killed
{
	my $caller = EproTest::Psql->new($node);

	stage($look, 8001, 8600);
	close_gate($look, 8225);
	$caller->send(q{SELECT * FROM epro_etl.run('mood', workers => 1)});
	ok(await_gate($look), 'killed: the worker is in a chunk');
	kill 'KILL', $look->query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'epro_etl worker'});
	$caller->wait;
	await_back($node);
	$_->close foreach ($caller, $look);
	$look = observer($node);
	is(records(), 'begin|', 'killed: the run has begun, and no end');
	whole_ok($look, 'killed');
	$look->query('DELETE FROM gate');
	is($look->query(q{SELECT status FROM epro_etl.run('mood', workers => 2)}), 'succeeded', 'killed: the next run goes on');
	whole_ok($look, 'killed, after the next run');
	return;
}

# A copy of the database has the whole trail, goes on with chains of its own, and says that it was restored.
sub dumped
{
	my $file = $node->basedir . '/dump.sql';

	stage($look, 9001, 9001, 1);
	$look->query(q{SELECT epro_etl.run('mood', workers => 0); UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{payload,mood01}', '1') WHERE source_id = '9001'});
	my $heads = $look->query('SELECT epro_etl.audit_heads()');
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $file ], 'dumped');
	$look->query('CREATE DATABASE copy TEMPLATE template0');
	$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $file ], 'dumped: and restored');
	my $copy = EproTest::Psql->new($node, dbname => 'copy');
	whole_ok($copy, 'dumped: in the copy');
	is($copy->query("SELECT * FROM epro_etl.verify_audit('$heads')"), '', 'dumped: with all heads that were kept');
	is($copy->query('SELECT count(*) FROM epro_etl.correction'), 1, 'dumped: with earlier originals');
	is($copy->query(q{SELECT count(*) > 0 FROM epro_etl.audit_trail t JOIN epro_etl.audit_writer w USING (writer) WHERE w.slot IS NOT NULL AND t.action = 'add' AND t.object = 'form'}),
		't', 'dumped: the restore itself is recorded, in another chain');
	is($copy->query("SELECT count(*) = (SELECT count(*) FROM jsonb_object_keys('$heads')) FROM epro_etl.audit_writer WHERE slot IS NULL"), 't', 'dumped: what came with the dump is closed');
	$copy->query(q{SELECT epro_etl.add_edit_check('MOOD', 'of the copy', 'mood01 < 3')});
	is($copy->query("SELECT * FROM epro_etl.verify_audit('$heads')"), '', 'dumped: and the copy goes on');
	$copy->close;
	$look->query('DROP DATABASE copy');
	return;
}

# Read on a standby; and there it goes on when that is promoted.
sub standby
{
	my $standby = PostgreSQL::Test::Cluster->new('audit_standby');

	$node->backup('audit');
	$standby->init_from_backup($node, 'audit', has_streaming => 1);
	$standby->start;
	$look->query(q{SELECT epro_etl.add_edit_check('MOOD', 'before', 'mood01 < 3')});
	$node->wait_for_catchup($standby);
	my $there = EproTest::Psql->new($standby);
	whole_ok($there, 'standby');
	my ($out, $error) = $there->try(q{SELECT epro_etl.add_edit_check('MOOD', 'during', 'mood01 < 3')});
	is(sqlstate($error), '25006', 'standby: where nothing can be recorded, nothing is done');
	$standby->promote;
	$there->query(q{SELECT epro_etl.add_edit_check('MOOD', 'after', 'mood01 < 3')});
	whole_ok($there, 'standby, promoted');
	$there->close;
	$standby->stop('fast');
	return;
}
