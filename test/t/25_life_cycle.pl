# The extension's own life: updated, dumped, restored, in two databases, on two
# servers, of two versions of PostgreSQL. Whatever is done to it, no response is
# lost or there twice, and an updated catalogue is the one that is made new.
#
#   what                                                  where
#   update: catalogue, rows, grants, the trail            here, upgraded
#   new library, objects of the first version             here, refused
#   update under a run, a stream, an inline run           here, alive
#   update twice at once, beside a run; CREATE, DROP      here, updates_meet, made_at_once
#   DROP EXTENSION under a run; under a stream            07, dropped_extension; 10, extension_dropped
#   dump and restore of a database with all kinds of rows here, upgraded; the trail alone 29, dumped
#   participants and random codes in a dump               14, 20
#   two databases at once                                 here, two_databases; DROP DATABASE 10
#   a physical standby, and its promotion                 05, standby; 29, standby
#   logical replication of sinks                          here, replicated
#   restart of a server with streams                      09, shut_down; before the update here, refused
#   pg_upgrade                                            here, pg_upgraded, where EPRO_OLD_BIN and EPRO_NEW_BIN
#                                                         name the programs of two versions, both with the library:
#                                                         make check-upgrade
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $first = '0.1.0';
my $now = '0.2.0';

my $node = create_node('life', init => { allows_streaming => 'logical' }, conf => "max_worker_processes = 24\nepro_etl.naptime = '100ms'\n");
my $look = observer($node);

$look->query('CREATE ROLE life_auditor; CREATE ROLE life_admin SUPERUSER LOGIN');
parts(__PACKAGE__, qw(upgraded alive updates_meet made_at_once two_databases replicated refused pg_upgraded));

$look->close;
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/, 'no process crashed');
done_testing();

# ---- databases, and what is in them ----

# A session in a new database with the extension in some version, and the fixture.
sub database
{
	my ($on, $name, $version, %args) = @_;

	EproTest::Psql->new($on)->query("CREATE DATABASE $name TEMPLATE template0");
	my $session = EproTest::Psql->new($on, dbname => $name);
	$session->query("CREATE EXTENSION epro_etl VERSION '$version'");
	create_fixture($on, dbname => $name, gates => $args{gates} || 0);
	return $session;
}

# Configuration of every kind, by the functions of any version; a second pipeline where the latest stands.
sub configure
{
	my ($session) = @_;

	$session->query(<<'SQL');
CREATE TABLE newest (subject_key text PRIMARY KEY, source_id bigint, authored timestamptz, mood01 int, run_id bigint);
CREATE TABLE staging_2 (LIKE staging INCLUDING ALL);
CREATE TABLE studies (study text PRIMARY KEY);
CREATE VIEW newest_all AS SELECT source_id, run_id FROM newest UNION ALL SELECT earlier_source_id::bigint, earlier_run_id FROM epro_etl.superseded;
SELECT epro_etl.create_pipeline('newest', 'staging_2', '{"id": "response_id"}');
SELECT epro_etl.add_sink('newest', 'MOOD', 'newest', on_duplicate => 'latest');
SELECT epro_etl.add_edit_check('MOOD', 'even', 'mood02 <> 1', severity => 'warning');
SELECT epro_etl.add_edit_check('MOOD', 'gone', 'mood01 < 4'); SELECT epro_etl.remove_edit_check('MOOD', 'gone');
SELECT epro_etl.set_severity('MOOD', 'even', 'information', 'for now');
SELECT epro_etl.register_form('OTHER', '{"properties": {"a": {"type": "integer", "minimum": 0}, "b": {"type": "string"}}}');
SELECT epro_etl.set_deid('OTHER', '/b', 'remove');
SELECT epro_etl.add_check('OTHER', 'too few', 'batch_threshold', '{"rule": "/a/minimum", "max_ratio": 0.5}');
SELECT epro_etl.register_form('F', '<?xml version="1.0" encoding="UTF-8"?><ODM xmlns="http://www.cdisc.org/ns/odm/v1.3" ODMVersion="1.3.2"><Study OID="S"><MetaDataVersion OID="M" Name="M"><FormDef OID="F" Name="The form" Repeating="No"><ItemGroupRef ItemGroupOID="G" Mandatory="Yes"/></FormDef><ItemGroupDef OID="G" Name="The group" Repeating="No"><ItemRef ItemOID="I" Mandatory="Yes"/></ItemGroupDef><ItemDef OID="I" Name="I" DataType="integer"/></MetaDataVersion></Study></ODM>'::xml);
INSERT INTO epro_etl.deid_profile (profile, category, method) VALUES ('house', 'dates', 'remove');
INSERT INTO epro_etl.study (study, title) VALUES ('ST01', 'The study');
INSERT INTO epro_etl.participant (study, subject_key, site) VALUES ('ST01', repeat('ab', 32), 'north');
INSERT INTO epro_etl.site_access (study, site, role) VALUES ('ST01', 'north', 'life_auditor');
INSERT INTO epro_etl.pseudonym (domain, study, original, code) VALUES ('site', 'ST01', 'north', 'CODE-1');
SELECT epro_etl.set_hop('study', 'studies');
GRANT USAGE ON SCHEMA epro_etl TO life_auditor;
GRANT SELECT ON epro_etl.superseded, epro_etl.run_history, epro_etl.run_worker TO life_auditor;
GRANT EXECUTE ON FUNCTION epro_etl.run, epro_etl.odm_read TO life_auditor;
SQL
	return;
}

# Rows of every kind: runs with rejects, superseded rows, requeued ones, one that waits for its sink.
sub load
{
	my ($session) = @_;

	stage($session, 1, 300, 7);
	$session->query(<<'SQL');
INSERT INTO staging_2 SELECT g, 'ST01', 'MOOD', 'S-' || (g % 31), 'V', '2026-01-01 08:00+00'::timestamptz + g * interval '1 minute', '{"mood01": 1}' FROM generate_series(2001, 2100) g;
INSERT INTO put_in SELECT 'staging_2', response_id, payload FROM staging_2;
SELECT epro_etl.run('mood', workers => 2, reason => 'the first night');
SELECT epro_etl.run('mood', workers => 0, dry_run => true);
SELECT epro_etl.run('newest', workers => 2);
SELECT epro_etl.requeue('mood', source_ids => '{7,14}');
INSERT INTO epro_etl.outbox (sink_id, run_id, source_id, "row", since, refused) SELECT sink_id, 1, 'x', '{"mood01": 1}', now(), '23505' FROM epro_etl.sink WHERE target = 'newest'::regclass;
SQL
	return;
}

# Rows of tables, by way of a file, in the columns that both have; and where sequences stand.
sub copy_rows
{
	my ($from, $to, @tables) = @_;
	my $file = $node->basedir . '/rows';

	foreach my $table (@tables)
	{
		my $columns = columns_of($to, $table);
		$from->query("COPY (SELECT $columns FROM $table) TO '$file'");
		$to->query("TRUNCATE $table CASCADE") unless $table =~ /^epro_etl/;
		$to->query("COPY $table ($columns) FROM '$file'");
	}
	foreach my $sequence (split /\n/, $from->query(q{SELECT c.oid::regclass FROM pg_class c WHERE relkind = 'S' AND relnamespace = 'epro_etl'::regnamespace}))
	{
		my ($last, $called) = split /\|/, $from->query("SELECT last_value, is_called FROM $sequence");
		$to->query("SELECT setval(to_regclass('$sequence'), $last, '$called')");
	}
	return;
}

sub columns_of
{
	my ($session, $table) = @_;
	return $session->query("SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0 AND NOT attisdropped");
}

# "table count digest", a line a table; of which columns is for the caller to say.
sub rows_of
{
	my ($session, %columns) = @_;

	return join "\n", map {
		"$_ " . $session->query("SELECT count(*), md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '')) FROM (SELECT $columns{$_} FROM $_) t")
	} sort keys %columns;
}

# All tables of the extension with all of their columns.
sub tables_of
{
	my ($session) = @_;
	return map { $_ => columns_of($session, $_) }
	  split /\n/, $session->query(q{SELECT c.oid::regclass FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'epro_etl'::regnamespace});
}

# Waits until somebody waits for a lock, in one database.
sub somebody_waits
{
	my ($database) = @_;
	return until_true($look, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '$database'");
}

# ---- the catalogue, kind by kind, as text ----

# The queries: what there is of each kind, in an order that does not depend on OIDs.
sub catalogue
{
	# MAINTAIN came with PostgreSQL 17, and an owner's list from before lacks it
	my $acl = sub { "(SELECT string_agg(replace(x, 'm/', '/'), ' ' ORDER BY x) FROM unnest($_[0]::text[]) x)" };
	my $ours = q{= 'epro_etl'::regnamespace};

	return (
		version => q{SELECT extversion, extowner::regrole, extnamespace::regnamespace, extrelocatable FROM pg_extension WHERE extname = 'epro_etl'},
		# row types and arrays are members of their own from PostgreSQL 16 on, in both
		members => q{SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend WHERE refclassid = 'pg_extension'::regclass
			AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'epro_etl') AND deptype = 'e' ORDER BY 1},
		schema => "SELECT nspowner::regrole, " . $acl->(q{coalesce(nspacl, acldefault('n', nspowner))}) . " FROM pg_namespace WHERE nspname = 'epro_etl'",
		# what a column that nobody named is called stays in a body that was dumped
		functions => "SELECT replace(pg_get_functiondef(oid), '::text AS text', '::text'), proowner::regrole, probin, " . $acl->(q{coalesce(proacl, acldefault('f', proowner))}) . " FROM pg_proc WHERE pronamespace $ours ORDER BY oid::regprocedure::text",
		relations => "SELECT relname, relkind, relpersistence, relowner::regrole, (SELECT amname FROM pg_am m WHERE m.oid = relam), reloptions, relrowsecurity, relforcerowsecurity, relreplident, "
		  . $acl->(q{coalesce(relacl, CASE WHEN relkind IN ('r', 'v') THEN acldefault('r', relowner) WHEN relkind = 'S' THEN acldefault('s', relowner) END)}) . " FROM pg_class WHERE relnamespace $ours ORDER BY relname",
		columns => "SELECT c.relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstorage, attcompression, attcollation::regcollation, pg_get_expr(adbin, adrelid), "
		  . $acl->('attacl') . " FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum WHERE relnamespace $ours AND attnum > 0 ORDER BY 1, 2",
		views => "SELECT relname, pg_get_viewdef(oid) FROM pg_class WHERE relnamespace $ours AND relkind = 'v' ORDER BY 1",
		constraints => "SELECT conrelid::regclass, contypid::regtype, conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace $ours ORDER BY 1, 2, 3",
		indexes => "SELECT pg_get_indexdef(oid), relam, reloptions FROM pg_class WHERE relnamespace $ours AND relkind = 'i' ORDER BY 1",
		sequences => "SELECT seqrelid::regclass, seqstart, seqincrement, seqcycle, seqcache FROM pg_sequence JOIN pg_class c ON c.oid = seqrelid WHERE relnamespace $ours ORDER BY 1",
		triggers => "SELECT pg_get_triggerdef(t.oid), tgenabled FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace $ours AND NOT tgisinternal ORDER BY 1",
		policies => q{SELECT * FROM pg_policies WHERE schemaname = 'epro_etl' ORDER BY tablename, policyname},
		types => "SELECT typname, typtype, typnotnull, typcollation::regcollation, typowner::regrole, " . $acl->(q{coalesce(typacl, acldefault('T', typowner))}) . " FROM pg_type WHERE typnamespace $ours ORDER BY 1",
		comments => q{SELECT pg_describe_object(classoid, objoid, objsubid), description FROM pg_description WHERE pg_describe_object(classoid, objoid, objsubid) LIKE '%epro\_etl%' ORDER BY 1},
		# what a dump takes for the extension's own privileges, and does not have
		initial => "SELECT pg_describe_object(classoid, objoid, objsubid), privtype, " . $acl->('initprivs') . q{ FROM pg_init_privs WHERE pg_describe_object(classoid, objoid, objsubid) LIKE '%epro\_etl%' ORDER BY 1},
		dumped => q{SELECT r::regclass, c FROM pg_extension, unnest(extconfig, extcondition) AS u (r, c) WHERE extname = 'epro_etl' ORDER BY r::regclass::text},
	);
}

# One assertion a kind: nothing is in one of them alone.
sub same_catalogue
{
	my ($one, $other, $name, @but) = @_;
	my %catalogue = catalogue();

	delete @catalogue{@but};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $kind (sort keys %catalogue)
	{
		my @have = map { my $session = $_; $session->query('SET search_path = pg_catalog'); my $told = $session->query($catalogue{$kind}); $session->query('RESET search_path'); $told } ($one, $other);
		isnt($have[1], '', "$name: there are $kind") unless $kind eq 'policies';
		is($have[0], $have[1], "$name: same $kind");
	}
	return;
}

# The oracle, over both pipelines of configure(). Of run 1 some were requeued: it has rejected them, and they are elsewhere.
sub all_ok
{
	my ($session, $name, @requeued) = @_;
	my $rejected = $session->query('SELECT rejected FROM epro_etl.run_history WHERE run_id = 1');
	my $says = $session->query(q{SELECT string_agg(o, chr(10) ORDER BY o COLLATE "C") FROM oracle('{staging,staging_2}', '{mood_sink,newest_all}') o});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($says, join("\n", (map { "response $_ of run 1 has a finding that rejects it and is not in quarantine" } sort @requeued),
			"run 1 rejected $rejected by its ledger and " . ($rejected - @requeued) . ' by quarantine'), "oracle: $name");
	return is($session->query('SELECT problem, object, detail FROM epro_etl.verify_audit()'), '', "$name: the audit trail is whole");
}

# A night in such a database; one response from quarantine is corrected.
sub works_on
{
	my ($session, $from, $corrected, $name, @requeued) = @_;
	my $to = $from + 99;

	stage($session, $from, $to, 7);
	is($session->query(q{SELECT status, claimed > 99, rejected BETWEEN 14 AND 17 FROM epro_etl.run('mood', workers => 2)}), 'succeeded|t|t', "$name: a run");
	$session->query(qq{INSERT INTO staging_2 SELECT g, 'ST01', 'MOOD', 'S-' || (g % 31), 'V', '2026-06-01 08:00+00'::timestamptz + g * interval '1 minute', '{"mood01": 2}' FROM generate_series($from + 5000, $to + 5000) g;
		INSERT INTO put_in SELECT 'staging_2', response_id, payload FROM staging_2});
	is($session->query(q{SELECT status, loaded FROM epro_etl.run('newest', workers => 0)}), 'succeeded|100', "$name: a run where the latest stands");
	$session->query(qq{UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{payload,mood01}', '1') WHERE source_id = '$corrected'; SELECT epro_etl.requeue('mood', source_ids => '{$corrected}')});
	is($session->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 0)}), 'succeeded|1', "$name: one from quarantine of before, corrected");
	all_ok($session, $name, @requeued, $corrected);
	return;
}

# ---- the parts ----

# From the first version to this one, with rows of every kind; then dumped and restored.
sub upgraded
{
	my $fresh = database($node, 'fresh', $now);
	my $old = database($node, 'old', $first);
	my $admin = EproTest::Psql->new($node, dbname => 'old', user => 'life_admin');

	configure($_) foreach ($fresh, $old);
	load($fresh);
	# this is what the first version's library leaves behind
	copy_rows($fresh, $old, qw(staging put_in mood_sink staging_2 newest), map { "epro_etl.$_" } qw(key_version run_ledger run_worker finding quarantine superseded requeued outbox));
	my %tables = tables_of($old);
	my $before = rows_of($old, %tables);
	unlike($before, qr/^epro_etl\.(?!stream|context_server)\S+ 0\|/m, 'upgraded: there are rows of each kind');

	$admin->query(q{BEGIN; SELECT epro_etl.context_set('actor', 'the night shift'), epro_etl.context_set('reason', 'release 2'); ALTER EXTENSION epro_etl UPDATE; COMMIT});
	is(rows_of($old, %tables), $before, 'upgraded: all rows are kept');
	same_catalogue($old, $fresh, 'upgraded');
	is($old->query(q{SELECT seq, action, object, old_value ->> 'version', new_value ->> 'version', new_value #>> '{rows,run_ledger}', session_user_name, actor, reason FROM epro_etl.audit_trail ORDER BY at LIMIT 1}),
		"1|update|extension|$first|$now|3|life_admin|the night shift|release 2", 'upgraded: the first word of the audit trail');
	is($old->query(q{SELECT string_agg(action || ' ' || (new_value ->> 'run_id'), ', ' ORDER BY seq) FROM epro_etl.audit_trail WHERE seq > 1}),
		'begin 1, end 1, begin 2, end 2, begin 3, end 3, overwrite 3', 'upgraded: and then the runs of before');
	all_ok($old, 'upgraded', 7, 14);
	# what is of before is covered, too
	foreach my $change ([ 'ledger', q{UPDATE epro_etl.run_ledger SET reason = 'another' WHERE run_id = 1} ], [ 'ledger', 'UPDATE epro_etl.run_worker SET claimed = claimed + 1, loaded = loaded + 1 WHERE run_id = 3' ],
		[ 'findings', 'DELETE FROM epro_etl.finding WHERE run_id = 1' ], [ 'superseded', 'DELETE FROM epro_etl.superseded WHERE superseded_id = (SELECT min(superseded_id) FROM epro_etl.superseded)' ])
	{
		$old->query("BEGIN; $change->[1]");
		is($old->query('SELECT DISTINCT problem FROM epro_etl.verify_audit()'), $change->[0], "upgraded: seen: $change->[1]");
		$old->query('ROLLBACK');
	}
	is(($admin->try('ALTER EXTENSION epro_etl UPDATE'))[1] =~ /already installed/ ? 'told' : '', 'told', 'upgraded: a second update has nothing to do');
	works_on($_->[0], 301, 21, $_->[1], 7, 14) foreach ([ $old, 'upgraded' ], [ $fresh, 'fresh' ]);
	is($old->query(q{SELECT has_table_privilege('life_auditor', 'epro_etl.superseded', 'SELECT'), has_function_privilege('life_auditor', 'epro_etl.odm_read(xml)', 'EXECUTE')}), 't|t', 'upgraded: what was granted stays');
	$admin->close;

	# a copy of it has all of that
	my $file = $node->basedir . '/dump.sql';
	$old->query(q{SELECT epro_etl.start_stream('mood')});
	ok(await_stream($old, q{state = 'running'}), 'dumped: a stream is up');
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('old'), '-f', $file ], 'dumped');
	$old->query(q{SELECT epro_etl.stop_stream('mood')});
	$look->query('CREATE DATABASE restored TEMPLATE template0');
	$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $file ], 'dumped: and restored');
	my $copy = EproTest::Psql->new($node, dbname => 'restored');
	%tables = tables_of($old);
	# chains go over into others here, and the run of the stream has ended there since
	delete @tables{qw(epro_etl.audit_trail epro_etl.audit_writer epro_etl.stream epro_etl.run_worker)};
	delete $tables{'epro_etl.run_ledger'};
	is(rows_of($copy, %tables), rows_of($old, %tables), 'restored: all rows are there');
	my $runs = q{SELECT count(*), md5(string_agg(l::text, chr(10) ORDER BY run_id)) FROM epro_etl.run_ledger l WHERE NOT stream};
	my $workers = q{SELECT count(*), md5(string_agg(w::text, chr(10) ORDER BY run_id, worker)) FROM epro_etl.run_worker w JOIN epro_etl.run_ledger l USING (run_id) WHERE NOT stream};
	is($copy->query($_), $old->query($_), 'restored: and all runs') foreach ($runs, $workers);
	is($copy->query('SELECT count(*) FROM epro_etl.stream'), 0, 'restored: no stream is up');
	same_catalogue($copy, $fresh, 'restored');
	my $missing = $old->query('SELECT string_agg(encode(hash, \'hex\'), \' \' ORDER BY hash) FROM epro_etl.audit_trail WHERE at < (SELECT max(at) FROM epro_etl.audit_trail WHERE object = \'stream\' AND action = \'remove\')');
	is($copy->query("SELECT count(*) FROM unnest(string_to_array('$missing', ' ')) h WHERE NOT EXISTS (SELECT FROM epro_etl.audit_trail t WHERE encode(t.hash, 'hex') = h)"), 0, 'restored: all records are there');
	works_on($copy, 501, 28, 'restored', 7, 14, 21);
	all_ok($old, 'dumped', 7, 14, 21);
	$_->close foreach ($copy, $old, $fresh);
	return;
}

# Refused while a run or a stream lives; an inline run is waited for. There is no run under the first version with this
# library, so the catalogue only says that it is of that one.
sub alive
{
	my $session = database($node, 'alive', $now, gates => 1);
	my $other = EproTest::Psql->new($node, dbname => 'alive');
	my $update = 'ALTER EXTENSION epro_etl UPDATE';
	my $claims = sub { $session->query("UPDATE pg_extension SET extversion = '$_[0]' WHERE extname = 'epro_etl'") };

	stage($session, 1, 600, 7);
	close_gate($session, 225);
	my $run = $session->query(q{SELECT epro_etl.start_run('mood', workers => 2)});
	ok(await_gate($session), 'alive: a worker is in a chunk');
	$claims->($first);
	my (undef, $error) = $other->try($update);
	is(sqlstate($error), '55006', 'alive: refused while a run goes on');
	like($error, qr/runs go on: $run\n.*HINT: .*stop_stream.*cancel_run/s, 'alive: with its number, and what to do');
	open_gates($session);
	is($session->query("SELECT status FROM epro_etl.wait_run($run)"), 'succeeded', 'alive: which it does not touch');

	$claims->($now);
	start_stream($session, '{"validate": 1, "store": 1}');
	my $writer = EproTest::Psql->new($node, dbname => 'alive');
	$writer->send('DO $$ BEGIN FOR i IN 601..1600 BY 10 LOOP PERFORM stage(i, i + 9, 7); COMMIT; END LOOP; END $$');
	$claims->($first);
	is(sqlstate(($other->try($update))[1]), '55006', "alive: refused while a stream is up, $_. time") foreach (1, 2);
	$writer->wait;
	ok(until_true($session, 'SELECT NOT EXISTS (SELECT FROM staging)'), 'alive: the stream goes on');
	$claims->($now);
	stop_stream_ok($session, 'alive');

	stage($session, 2001, 2100, 7);
	$session->query(q{BEGIN; SELECT epro_etl.run('mood', workers => 0)});
	$other->query("UPDATE pg_extension SET extversion = '$first' WHERE extname = 'epro_etl'");
	$other->send($update);
	ok(somebody_waits('alive'), 'alive: it waits for an inline run');
	$session->query('COMMIT');
	(undef, $error) = $other->wait;
	is(sqlstate($error), '42701', 'alive: and then finds that this catalogue is not of the first version');
	$claims->($now);
	oracle_ok($session, 'alive');
	is($session->query('SELECT problem, object FROM epro_etl.verify_audit()'), '', 'alive: the audit trail is whole');
	$_->close foreach ($writer, $other, $session);
	return;
}

# Two updates at once, and runs beside one that commits, and one that does not.
sub updates_meet
{
	my $one = database($node, 'meet', $first);
	my $fresh = database($node, 'meet_fresh', $now);
	my ($two, $three) = map { EproTest::Psql->new($node, dbname => 'meet') } 1 .. 2;

	stage($one, 1, 300, 7);
	is(sqlstate(($one->try('BEGIN ISOLATION LEVEL SERIALIZABLE; ALTER EXTENSION epro_etl UPDATE'))[1]), '25001', 'updates meet: not with an old snapshot');
	$one->query('ROLLBACK; BEGIN; ALTER EXTENSION epro_etl UPDATE');
	$two->send(q{SELECT epro_etl.run('mood', workers => 2)});
	ok(somebody_waits('meet'), 'updates meet: a run waits');
	$one->query('ROLLBACK');
	is(sqlstate(($two->wait)[1]), '55000', 'updates meet: and is refused after a rollback');
	is($look->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'epro_etl %'}), 0, 'updates meet: no worker is left');

	$one->query('BEGIN; ALTER EXTENSION epro_etl UPDATE');
	$two->send(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2)});
	ok(somebody_waits('meet'), 'updates meet: another run waits');
	$three->send('ALTER EXTENSION epro_etl UPDATE');
	ok(until_true($look, 'SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = ' . $three->backend . ')'), 'updates meet: so does another update');
	$one->query('COMMIT');
	is(($two->wait)[0], 'succeeded|300', 'updates meet: the run goes on with what is there then');
	like(($three->wait)[1], qr/^$|already installed|tuple concurrently updated/, 'updates meet: the other has nothing to do');
	same_catalogue($one, $fresh, 'updates meet');
	oracle_ok($one, 'updates meet');
	is($one->query('SELECT problem, object FROM epro_etl.verify_audit()'), '', 'updates meet: the audit trail is whole');
	is($one->query(q{SELECT count(*) FROM epro_etl.audit_trail WHERE action = 'update'}), 1, 'updates meet: there was one');

	# in the very transaction
	my $again = database($node, 'meet_again', $first);
	stage($again, 1, 100, 7);
	$again->query(q{BEGIN; ALTER EXTENSION epro_etl UPDATE; SELECT epro_etl.run('mood', workers => 0); COMMIT});
	oracle_ok($again, 'updated and loaded in one transaction');
	is($again->query('SELECT problem, object FROM epro_etl.verify_audit()'), '', 'updated and loaded in one transaction: the audit trail is whole');
	$_->close foreach ($one, $two, $three, $fresh, $again);
	return;
}

# CREATE and DROP EXTENSION that meet each other, and an update.
sub made_at_once
{
	$look->query('CREATE DATABASE twice TEMPLATE template0');
	my ($one, $two) = map { EproTest::Psql->new($node, dbname => 'twice') } 1 .. 2;

	foreach my $end ('ROLLBACK', 'COMMIT')
	{
		$one->query('BEGIN; CREATE EXTENSION epro_etl');
		$two->send('CREATE EXTENSION epro_etl');
		ok(somebody_waits('twice'), "made at once: the second waits for a $end");
		$one->query($end);
		my (undef, $error) = $two->wait;
		is(sqlstate($error), '', 'made at once: made after a ROLLBACK') if $end eq 'ROLLBACK';
		like(sqlstate($error), qr/^(?:23505|42710)$/, 'made at once: refused after a COMMIT') if $end eq 'COMMIT';
		$one->query('DROP EXTENSION epro_etl');
	}
	# who drops waits for who updates: what comes of it is all, or nothing
	foreach my $end ('ROLLBACK', 'COMMIT')
	{
		$one->query("CREATE EXTENSION epro_etl VERSION '$first'");
		$one->query('BEGIN; ALTER EXTENSION epro_etl UPDATE');
		$two->send('DROP EXTENSION epro_etl');
		ok(somebody_waits('twice'), "dropped while it is updated: it waits for a $end");
		$one->query($end);
		my (undef, $error) = $two->wait;
		note("DROP after $end: " . sqlstate($error));
		my $version = $one->query(q{SELECT extversion FROM pg_extension WHERE extname = 'epro_etl'});
		is($version, $error eq '' ? '' : $end eq 'COMMIT' ? $now : $first, "dropped while it is updated, $end: there is " . ($version || 'none'));
		is($one->query(q{SELECT count(*) FROM pg_namespace WHERE nspname = 'epro_etl'}), $version eq '' ? 0 : 1, "dropped while it is updated, $end: and its schema likewise");
		if ($version ne '')
		{
			my $fresh = database($node, "whole_\L$end", $version);
			same_catalogue($one, $fresh, "dropped while it is updated, $end");
			$fresh->close;
			$one->query('DROP EXTENSION epro_etl');
		}
		is($one->query(q{SELECT count(*) FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = relnamespace WHERE n.oid IS NULL OR nspname = 'epro_etl'}), 0, "dropped while it is updated, $end: nothing is left then");
	}
	# a run as it is made anew: as ever, there is no such pipeline
	$one->query('CREATE EXTENSION epro_etl; BEGIN; DROP EXTENSION epro_etl; CREATE EXTENSION epro_etl');
	$two->send(q{SELECT epro_etl.run('mood')});
	ok(somebody_waits('twice') , 'made anew: a run waits');
	$one->query('COMMIT');
	like(sqlstate(($two->wait)[1]), qr/^42/, 'made anew: and is refused');
	is($look->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'epro_etl %'}), 0, 'made anew: no worker is left');
	$_->close foreach ($one, $two);
	return;
}

# The same names and numbers in two databases of a server, at the same time.
sub two_databases
{
	my @there = map { database($node, $_, $now) } qw(here there);
	my @callers = map { EproTest::Psql->new($node, dbname => $_) } qw(here there);
	my @writers = map { EproTest::Psql->new($node, dbname => $_) } qw(here there);

	foreach my $n (0, 1)
	{
		my $base = 10000 * $n;
		$there[$n]->query(q{CREATE TABLE staging_2 (LIKE staging INCLUDING ALL); SELECT epro_etl.create_pipeline('second', 'staging_2', '{"id": "response_id"}');
			SELECT epro_etl.create_sink('second', 'MOOD', 'second_sink')});
		$there[$n]->query("SELECT stage($base + 5001, $base + 6000, 7 + $n); INSERT INTO staging_2 SELECT * FROM staging; DELETE FROM staging");
	}
	# the same number of a pipeline, and of its runs
	start_stream($_, '{"validate": 1, "store": 1}') foreach @there;
	$writers[$_]->send('DO $$ BEGIN FOR i IN ' . (10000 * $_ + 1) . '..' . (10000 * $_ + 1000) . ' BY 10 LOOP PERFORM stage(i, i + 9, 7); COMMIT; END LOOP; END $$') foreach (0, 1);
	$_->send(q{SELECT status, claimed FROM epro_etl.run('second', workers => 2)}) foreach @callers;
	foreach my $n (0, 1)
	{
		is(($callers[$n]->wait)[0], 'succeeded|1000', "two databases: the run in the $n.");
		$writers[$n]->wait;
		ok(until_true($there[$n], 'SELECT NOT EXISTS (SELECT FROM staging)'), "two databases: the stream in the $n. has all");
		is($there[$n]->query('SELECT count(DISTINCT pipeline), min(pipeline) FROM epro_etl.stat_progress'), '1|mood', "two databases: of the $n. its own workers are seen");
	}
	# what ends in one goes on in the other
	is($there[0]->query(q{SELECT epro_etl.stop_stream('mood')}), 't', 'two databases: the stream of one is stopped');
	$there[0]->query('CREATE TABLE kept AS TABLE epro_etl.quarantine');
	oracle_ok($there[0], 'two databases, the first', sources => [qw(staging staging_2)], sinks => [qw(mood_sink second_sink)]);
	$there[0]->query('DROP EXTENSION epro_etl CASCADE');
	ok(await_stream($there[1], q{state = 'running' AND generations = 1}), 'two databases: that of the other is up');
	stage($there[1], 20001, 20100, 7);
	ok(until_true($there[1], 'SELECT NOT EXISTS (SELECT FROM staging)'), 'two databases: and works');
	is($there[1]->query(q{SELECT epro_etl.stop_stream('mood')}), 't', 'two databases: until it is stopped');
	oracle_ok($there[1], 'two databases, the second', sources => [qw(staging staging_2)], sinks => [qw(mood_sink second_sink)]);
	answers_ok($there[1], 'two databases, the second');
	is($there[1]->query('SELECT problem, object FROM epro_etl.verify_audit()'), '', 'two databases, the second: the audit trail is whole');
	$_->close foreach (@there, @callers, @writers);
	return;
}

# What a sink's subscriber gets is what was loaded, and no more.
sub replicated
{
	my $session = database($node, 'published', $now);
	my $far = PostgreSQL::Test::Cluster->new('life_far');

	$far->init(extra => [ '-E', 'UTF8', '--locale', 'C' ]);
	$far->append_conf('postgresql.conf', "timezone = 'UTC'\n");
	$far->start;
	configure($session);
	$node->command_ok([ 'pg_dump', '-s', '-t', 'mood_sink', '-t', 'newest', '-d', $node->connstr('published'), '-f', $node->basedir . '/sinks.sql' ], 'replicated: the sinks');
	$far->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $far->connstr('postgres'), '-f', $node->basedir . '/sinks.sql' ], 'replicated: are there');
	$session->query('CREATE PUBLICATION loaded FOR TABLE mood_sink, newest');
	my $there = EproTest::Psql->new($far);
	$there->query(q{CREATE SUBSCRIPTION loaded CONNECTION $$} . $node->connstr('published') . q{$$ PUBLICATION loaded});
	ok(until_true($there, q{SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel}), 'replicated: both follow');

	load($session);
	# a row that its sink refuses, in a chunk that is stored in tries
	stage($session, 601, 700, 7);
	$session->query('ALTER TABLE mood_sink ADD CONSTRAINT never CHECK (source_id <> 650) NOT VALID');
	$session->query(q{SELECT epro_etl.run('mood', workers => 1)});
	start_stream($session, '{"validate": 1, "store": 1}');
	stage($session, 701, 900, 7);
	ok(until_true($session, 'SELECT NOT EXISTS (SELECT FROM staging)'), 'replicated: a stream has loaded');
	stop_stream_ok($session, 'replicated');
	$session->query(q{INSERT INTO staging_2 SELECT g, 'ST01', 'MOOD', 'S-' || (g % 31), 'V', '2026-06-01 08:00+00'::timestamptz + g * interval '1 minute', '{"mood01": 2}' FROM generate_series(7001, 7100) g;
		INSERT INTO put_in SELECT 'staging_2', response_id, payload FROM staging_2; SELECT epro_etl.run('newest', workers => 2)});
	$node->wait_for_catchup('loaded');
	is(rows_of($there, mood_sink => '*', newest => '*'), rows_of($session, mood_sink => '*', newest => '*'), 'replicated: the same rows');
	is($there->query('SELECT count(*) > 300, count(*) FILTER (WHERE source_id = 650) FROM mood_sink'), 't|0', 'replicated: all that was loaded, and nothing else');
	all_ok($session, 'replicated', 7, 14);
	$there->query('DROP SUBSCRIPTION loaded');
	$_->close foreach ($there, $session);
	$far->stop('fast');
	return;
}

# A new library, and a database whose objects are those of the first version: nothing is taken, and it says what to do.
# Its stream is up as soon as they are updated, and after restarts.
sub refused
{
	my $session = database($node, 'waits', $first);

	stage($session, 1, 300, 7);
	foreach my $call (q{SELECT epro_etl.run('mood', workers => 2)}, q{SELECT epro_etl.run('mood', workers => 0)}, q{SELECT epro_etl.run('mood', dry_run => true)},
		q{SELECT epro_etl.wait_run(epro_etl.start_run('mood'))}, q{CALL epro_etl.run_job('mood')})
	{
		my (undef, $error) = $session->try($call);
		is(sqlstate($error), '55000', "refused: $call");
		like($error, qr/of version \Q$first\E in this database, and its library of version \Q$now\E\n(?:DETAIL:  .*\n)?HINT:  Run ALTER EXTENSION epro_etl UPDATE\./, 'refused: and it says what to do');
	}
	is($session->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.run_ledger), (SELECT count(*) FROM epro_etl.key_version)'), '300|0|0|0', 'refused: nothing was done');
	is($look->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'epro_etl %'}), 0, 'refused: no worker is left');
	oracle_ok($session, 'refused');

	$session->query(q{SELECT epro_etl.start_stream('mood')});
	my $waits = q{state IN ('waiting', 'down') AND sqlstate = '55000' AND message ~ 'of version'};
	ok(await_stream($session, $waits), 'refused: a stream waits, and says why');
	$_->close foreach ($session, $look);
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'epro_etl'\n");
	$node->restart;
	$look = observer($node);
	$session = EproTest::Psql->new($node, dbname => 'waits');
	ok(await_stream($session, $waits), 'refused: after a restart, too');
	is($session->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink)'), '300|0', 'refused: it takes nothing');
	$session->query('ALTER EXTENSION epro_etl UPDATE');
	ok(await_stream($session, q{state = 'running'}), 'updated: the stream is up by itself');
	ok(until_true($session, 'SELECT NOT EXISTS (SELECT FROM staging)'), 'updated: and loads');
	$_->close foreach ($session, $look);
	$node->restart;
	$look = observer($node);
	$session = EproTest::Psql->new($node, dbname => 'waits');
	stage($session, 301, 400, 7);
	ok(until_true($session, 'SELECT NOT EXISTS (SELECT FROM staging)'), 'updated: after a restart, too');
	stop_stream_ok($session, 'updated');
	oracle_ok($session, 'updated');
	answers_ok($session, 'updated');
	is($session->query('SELECT problem, object FROM epro_etl.verify_audit()'), '', 'updated: the audit trail is whole');
	$session->close;
	return;
}

# A whole server goes to another version of PostgreSQL; streams that were to be up are to be up there.
sub pg_upgraded
{
  SKIP:
	{
		my ($old_bin, $new_bin) = @ENV{qw(EPRO_OLD_BIN EPRO_NEW_BIN)};
		skip 'EPRO_OLD_BIN and EPRO_NEW_BIN do not name the programs of two versions of PostgreSQL with the library', 1 unless $old_bin && $new_bin;

		my ($from, $to) = map { create_node($_->[0], install_path => dirname($_->[1]), extension => 0) } ([ 'life_from', $old_bin ], [ 'life_to', $new_bin ]);
		my $file_of = sub { slurp_file($_[0]->basedir . '/pseudonym.key') };
		my $session = database($from, 'moved', $now);

		is($file_of->($from), $file_of->($to), 'pg_upgrade: they have the same key');
		EproTest::Psql->new($from)->query('CREATE ROLE life_auditor');
		configure($session);
		load($session);
		$session->query(q{SELECT epro_etl.start_stream('mood')});
		ok(until_true($session, 'SELECT NOT EXISTS (SELECT FROM staging)'), 'pg_upgrade: a stream is up');
		my %tables = tables_of($session);
		$session->close;
		$from->stop('fast');
		# the last generation has ended with the server
		$from->start;
		$session = EproTest::Psql->new($from, dbname => 'moved');
		my $before = rows_of($session, %tables);
		$session->close;
		$_->stop('fast') foreach ($from, $to);
		chdir $to->basedir or die "could not enter the node's folder: $!";
		command_ok([ "$new_bin/pg_upgrade", '-b', $old_bin, '-B', $new_bin, '-d', $from->data_dir, '-D', $to->data_dir, '-s', $to->host, '-p', $from->port, '-P', $to->port ], 'pg_upgrade: it comes to its end');
		$to->start;
		$session = EproTest::Psql->new($to, dbname => 'moved');
		note($session->query('SELECT version()'));
		is(rows_of($session, %tables), $before, 'pg_upgrade: all rows are there, as they were');
		my $fresh = database($to, 'fresh', $now);
		configure($fresh);
		# initial privileges that are the default are not entered again
		same_catalogue($session, $fresh, 'pg_upgrade', 'initial');
		is(stream_shows($session, 'state'), 'not running', 'pg_upgrade: the stream is still to be up');
		ok(start_stream($session), 'pg_upgrade: and is, when it is started');
		stage($session, 401, 500, 7);
		ok(until_true($session, 'SELECT NOT EXISTS (SELECT FROM staging)'), 'pg_upgrade: and loads');
		stop_stream_ok($session, 'pg_upgrade');
		works_on($session, 501, 21, 'pg_upgrade', 7, 14);
		$_->close foreach ($session, $fresh);
		$to->stop('fast');
		unlike(slurp_file($_->logfile), qr/PANIC:|TRAP:|was terminated by signal/, 'pg_upgrade: no process crashed') foreach ($from, $to);
	}
	return;
}
