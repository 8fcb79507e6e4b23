# Who may what, in each topology: inline, one worker, two, and a stream. The
# roles of doc/security.md, row security of quarantine, an owner that is no
# superuser, and what rules and functions of others try where a worker runs them.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

my $node = create_node('privileges', conf => "epro_etl.naptime = '100ms'\n");
create_fixture($node, gates => 1);
my $look = observer($node);
my @topologies = (0, 1, 2, 'stream');

$look->query(q{
	CREATE ROLE operator LOGIN; CREATE ROLE other LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE corrector LOGIN;
	CREATE ROLE keeper NOLOGIN;
	GRANT USAGE ON SCHEMA epro_etl TO operator, other, reader, corrector;
	GRANT EXECUTE ON FUNCTION epro_etl.run, epro_etl.start_run, epro_etl.wait_run, epro_etl.cancel_run, epro_etl.progress,
		epro_etl.start_stream, epro_etl.stop_stream, epro_etl.launch_stream, epro_etl.watch_source, epro_etl.pipeline_source,
		epro_etl.wake_stream, epro_etl.stream_status, epro_etl.channel_status TO operator, other;
	GRANT SELECT ON epro_etl.run_history, epro_etl.stat_progress, epro_etl.stat_stream TO operator, other;
	GRANT SELECT ON epro_etl.run_history TO reader;
	GRANT SELECT, DELETE, UPDATE ON staging TO operator;
	GRANT INSERT ON mood_sink TO operator});

parts('main', qw(one_runs_one_reads others rows_of_quarantine row_security_off owner rules restricted key_command temporary prepared));

$look->close;
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal 11/, 'no process crashed');
done_testing();

# Loads what is staged, in one of the topologies, as the session's role. Returns
# once so many responses have arrived; what it says then, or the error.
sub load
{
	my ($session, $topology, $n) = @_;
	my ($arrived, $out, $error);

	if ($topology ne 'stream')
	{
		($out, $error) = $session->try("SELECT status FROM epro_etl.run('mood', workers => $topology)");
		return $out || $error;
	}
	($out, $error) = $session->try(q{SELECT epro_etl.start_stream('mood', '{"validate": 1, "store": 1}')});
	return $error if sqlstate($error);
	$arrived = await_arrived($look, $n);
	$session->query(q{SELECT epro_etl.stop_stream('mood')});
	return $arrived ? 'succeeded' : 'not all arrived';
}

# The call is refused by what guards it, and not by something behind that.
sub refused
{
	my ($session, $call, $by, $name) = @_;
	my (undef, $error) = $session->try("SELECT $call");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($error, qr/ERROR:  42501: permission denied for $by(?!\w)/, $name);
}

# An operator sees no response, neither on its way nor where it went; a reader sees counts.
sub one_runs_one_reads
{
	my $operator = EproTest::Psql->new($node, user => 'operator');
	my $reader = EproTest::Psql->new($node, user => 'reader');

	foreach my $topology (@topologies)
	{
		restage($look, 1, 100, 7);
		is(load($operator, $topology, 100), 'succeeded', "$topology: an operator loads");
		foreach my $table (qw(epro_etl.quarantine epro_etl.finding epro_etl.run_ledger epro_etl.pseudonym epro_etl.stream mood_sink))
		{
			is(sqlstate(($operator->try("SELECT FROM $table"))[1]), '42501', "$topology: and does not see $table");
			is(sqlstate(($reader->try("SELECT FROM $table"))[1]), '42501', "$topology: nor does a reader");
		}
		is($reader->query('SELECT status, claimed, loaded, rejected FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1'), 'succeeded|100|86|14', "$topology: a reader sees the counts");
		oracle_ok($look, "$topology, an operator");
	}
	foreach my $call ("run('mood')", "start_run('mood')", "cancel_run(1)", "start_stream('mood')", "launch_stream('mood', NULL, NULL)", "stop_stream('mood')",
		"requeue('mood')", "register_form('X', '{}'::jsonb)", "validate('MOOD', '{}')")
	{
		my ($function) = $call =~ /^(\w+)/;

		refused($reader, "epro_etl.$call", "function $function", "a reader may not $call");
	}
	$_->close foreach ($operator, $reader);
	return;
}

# A run is its caller's: another operator cancels neither it nor its workers.
sub others
{
	my $operator = EproTest::Psql->new($node, user => 'operator');
	my $other = EproTest::Psql->new($node, user => 'other');

	restage($look, 1, 100);
	close_gate($look, 50);
	my $run = $operator->query(q{SELECT epro_etl.start_run('mood', workers => 2)});
	ok(await_gate($look), 'a worker stands in its chunk');
	is(sqlstate(($other->try("SELECT epro_etl.cancel_run($run)"))[1]), '42501', 'another role may not cancel the run');
	is(sqlstate(($other->try(q{SELECT pg_terminate_backend(pid) FROM epro_etl.stat_progress}))[1]), '42501', 'nor end its workers');
	foreach my $workers (0, 2)
	{
		refused($other, "epro_etl.run('mood', workers => $workers)", 'source "staging"', "nor run what it has no right to, $workers workers");
		$look->query('GRANT SELECT, DELETE ON staging TO other');
		refused($other, "epro_etl.run('mood', workers => $workers)", 'sink "mood_sink"', "nor into what it has no right to, $workers workers");
		$look->query('REVOKE ALL ON staging FROM other');
	}
	open_gates($look);
	is(($operator->try("SELECT status, loaded FROM epro_etl.wait_run($run)"))[0], 'succeeded|100', 'the run has not noticed');
	oracle_ok($look, 'another role');
	$_->close foreach ($operator, $other);
	return;
}

# Quarantine can be cut into rows for those who correct; workers write all of it,
# also where its policies hold for its owner.
sub rows_of_quarantine
{
	my $operator = EproTest::Psql->new($node, user => 'operator');
	my $corrector = EproTest::Psql->new($node, user => 'corrector');

	$look->query(q{
		ALTER TABLE epro_etl.quarantine ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON epro_etl.quarantine TO corrector USING (original ->> 'visit' = 'V2');
		GRANT SELECT, UPDATE, DELETE ON epro_etl.quarantine TO corrector;
		GRANT SELECT, INSERT, UPDATE ON epro_etl.requeued TO corrector;
		GRANT SELECT ON epro_etl.pipeline, epro_etl.finding TO corrector;
		GRANT INSERT ON staging TO corrector;
		GRANT EXECUTE ON FUNCTION epro_etl.requeue TO corrector});
	foreach my $forced (0, 1)
	{
		if ($forced)
		{
			give_all('keeper');
			$look->query('ALTER TABLE epro_etl.quarantine FORCE ROW LEVEL SECURITY');
		}
		foreach my $topology (@topologies)
		{
			my $what = "$topology, policies on quarantine" . ($forced ? ', for its owner, too' : '');

			restage($look, 1, 100, 7);
			is(load($operator, $topology, 100), 'succeeded', "$what: succeeds");
			is($look->query(q{SELECT count(*), count(*) FILTER (WHERE original ->> 'visit' = 'V2') FROM epro_etl.quarantine}), '14|3', "$what: all of it is there");
			is($corrector->query('SELECT count(*) FROM epro_etl.quarantine'), 3, "$what: who corrects sees his own");
			is($corrector->query(q{WITH u AS (UPDATE epro_etl.quarantine SET original = jsonb_set(original, '{payload,mood01}', '1') RETURNING 1) SELECT count(*) FROM u}), 3, "$what: corrects his own");
			is(($corrector->try(q{SELECT epro_etl.requeue('mood')}))[0], 3, "$what: and requeues his own");
			is($look->query('SELECT count(*) FROM epro_etl.quarantine'), 11, "$what: the others wait on");
			is(load($operator, $topology, 100), 'succeeded', "$what: loaded again");
			is($look->query(q{SELECT (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.quarantine), (SELECT count(*) FROM epro_etl.requeued)}), '89|11|0', "$what: they arrived, and their tries are settled");
			is($look->query(q{SELECT epro_etl.requeue('mood')}), 11, "$what: the others go back as they are");
			is(load($operator, $topology, 100), 'succeeded', "$what: judged again");
			is($look->query(q{SELECT count(*) FILTER (WHERE tries = 2), count(*), (SELECT count(*) FROM epro_etl.requeued) FROM epro_etl.quarantine}), '11|11|0', "$what: their tries are counted");
		}
	}
	give_all($look->query('SELECT session_user'));
	$look->query('ALTER TABLE epro_etl.quarantine DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY; DROP POLICY own ON epro_etl.quarantine; DROP OWNED BY corrector');
	$_->close foreach ($operator, $corrector);
	return;
}

# row_security = off does not open what a policy closes: it refuses.
sub row_security_off
{
	$look->query(q{
		ALTER TABLE staging ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON staging TO operator USING (visit = 'V1')});
	foreach my $topology (@topologies)
	{
		my $operator = EproTest::Psql->new($node, user => 'operator');

		restage($look, 1, 100);
		if ($topology ne 'stream')
		{
			$operator->query('SET row_security = off');
			is(sqlstate(($operator->try("SELECT epro_etl.run('mood', workers => $topology)"))[1]), '42501', "$topology, row_security off: refused");
			is($look->query('SELECT count(*) FROM staging'), 100, "$topology, row_security off: nothing moved");
			$operator->query('RESET row_security');
		}
		else
		{
			# its processes are sessions of their own, under what is set for the role
			$look->query('ALTER ROLE operator SET row_security = off');
			$operator->query(q{SELECT epro_etl.start_stream('mood')});
			ok(await_stream($look, q{sqlstate = '42501'}), "$topology, row_security off: refused");
			is($look->query('SELECT count(*) FROM staging'), 100, "$topology, row_security off: nothing moved");
			$operator->query(q{SELECT epro_etl.stop_stream('mood')});
			$look->query('ALTER ROLE operator RESET row_security');
		}
		is(load($operator, $topology, 20), 'succeeded', "$topology, a policy of the source: succeeds");
		is($look->query(q{SELECT string_agg(DISTINCT visit, ' '), count(*) FROM mood_sink}), 'V1|20', "$topology: what the role sees is loaded");
		is($look->query('SELECT count(*) FROM staging'), 80, "$topology: and the rest is where it was");
		$operator->close;
	}
	$look->query('ALTER TABLE staging DISABLE ROW LEVEL SECURITY; DROP POLICY own ON staging');
	return;
}

# The schema and all in it can belong to a role that is no superuser and cannot
# log in: then nothing of ours acts as more than that.
sub owner
{
	my $operator = EproTest::Psql->new($node, user => 'operator');

	give_all('keeper');
	is($look->query(q{SELECT rolsuper OR rolcanlogin FROM pg_roles WHERE oid = (SELECT relowner FROM pg_class WHERE oid = 'epro_etl.run_ledger'::regclass)}), 'f', 'the owner is no superuser');
	$look->query(q{SELECT epro_etl.set_deid('MOOD', 'subject', 'pseudonymize')});
	# tables of ours tell as whom they are written; findings and quarantine are filled in bulk, past triggers
	$look->query(q{
		CREATE TABLE acted (relation name, who name); GRANT INSERT ON acted TO PUBLIC;
		CREATE FUNCTION tells() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.acted VALUES (TG_RELNAME, current_user); RETURN NULL; END $$;
		DO $$ DECLARE relation text; BEGIN
			FOREACH relation IN ARRAY '{run_ledger,run_worker,stream}'::text[] LOOP
				EXECUTE format('CREATE TRIGGER tells AFTER INSERT OR UPDATE OR DELETE ON epro_etl.%I FOR EACH ROW EXECUTE FUNCTION tells()', relation);
			END LOOP;
		END $$});
	foreach my $topology (@topologies)
	{
		restage($look, 1, 100, 7);
		$look->query('TRUNCATE acted');
		is(load($operator, $topology, 100), 'succeeded', "$topology, an owner that is no superuser: succeeds");
		is($look->query(q{SELECT string_agg(DISTINCT concat_ws(' by ', relation, who), ', ' ORDER BY concat_ws(' by ', relation, who)) FROM acted}),
			'run_ledger by keeper, run_worker by keeper' . ($topology eq 'stream' ? ', stream by keeper' : ''), "$topology: what we write, the owner writes");
		is($look->query('SELECT (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.quarantine)'), '86|14', "$topology: all is where it belongs");
		oracle_ok($look, "$topology, an owner that is no superuser");
	}
	$look->query('SET ROLE keeper');
	is(sqlstate(($look->try(q{SELECT epro_etl.add_edit_check('MOOD', 'by keeper', 'mood01 < 9', 'warning')}))[1]), '', 'the owner configures');
	is($look->query(q{SELECT count(*) FROM epro_etl.edit_check WHERE check_name = 'by keeper' AND removed_at IS NULL}), 1, 'it is there');
	is(sqlstate(($look->try(q{SELECT epro_etl.remove_edit_check('MOOD', 'by keeper')}))[1]), '', 'and takes back');
	is($look->query(q{SELECT count(*) FROM epro_etl.edit_check WHERE check_name = 'by keeper' AND removed_at IS NULL}), 0, 'it is gone');
	refused($look, q{epro_etl.run('mood', workers => 0)}, 'source "staging"', 'but loads nothing that is not its own');
	is(sqlstate(($look->try(q{SELECT epro_etl.decrypt_answer('MOOD', '/note', 'ST01', 'x')}))[1]), '42501', 'nor decrypts');
	$look->query(q{RESET ROLE; DROP FUNCTION tells CASCADE; DROP TABLE acted});
	give_all($look->query('SELECT session_user'));
	$operator->close;
	return;
}

sub give_all
{
	my ($to) = @_;

	$look->query(qq{DO \$\$ DECLARE o record; BEGIN
		ALTER SCHEMA epro_etl OWNER TO $to;
		FOR o IN SELECT oid::regclass AS name, relkind FROM pg_class WHERE relnamespace = 'epro_etl'::regnamespace AND relkind IN ('r', 'v') LOOP
			EXECUTE format('ALTER %s %s OWNER TO $to', CASE o.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, o.name);
		END LOOP;
		FOR o IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'epro_etl'::regnamespace LOOP
			EXECUTE format('ALTER ROUTINE %s OWNER TO $to', o.name);
		END LOOP;
		ALTER DOMAIN epro_etl.subject_key OWNER TO $to;
	END \$\$});
	return;
}

# A rule's function tries what test/sql/43_security tries inline. The session is a
# superuser's that has become the operator: there is something to go back to.
sub rules
{
	my %refused = (write => '25006', table => '25006', role => '42501', 'session' => '42501', writable => '25001', run => '25006', file => '42501', path => '');

	$look->query(q{
		CREATE TABLE trophy (who name); GRANT INSERT ON trophy TO PUBLIC; GRANT CREATE ON SCHEMA public TO operator;
		CREATE FUNCTION act(what text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
		BEGIN
			CASE what
				WHEN 'write' THEN INSERT INTO public.trophy VALUES (current_user);
				WHEN 'table' THEN CREATE TABLE public.made ();
				WHEN 'role' THEN PERFORM set_config('role', 'none', false);
				WHEN 'session' THEN EXECUTE 'RESET SESSION AUTHORIZATION';
				WHEN 'writable' THEN PERFORM set_config('transaction_read_only', 'off', true);
				WHEN 'run' THEN PERFORM epro_etl.run('mood', workers => 0);
				WHEN 'file' THEN PERFORM pg_read_file('postgresql.conf');
				WHEN 'path' THEN PERFORM set_config('search_path', 'nowhere', false);
			END CASE;
			RETURN true;
		END $$;
		CREATE FUNCTION seems_harmless(what text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT public.act(what)); END $$;
		-- whoever stores acts as the role of the run, whatever a rule has tried before
		CREATE FUNCTION still() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF current_user <> 'operator' OR current_setting('search_path') = 'nowhere' THEN RAISE EXCEPTION 'not itself'; END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER still BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION still()});
	foreach my $topology (@topologies)
	{
		foreach my $what (sort keys %refused)
		{
			my $super = EproTest::Psql->new($node);
			my $loads = $refused{$what} eq '';

			restage($look, 1, 10);
			$look->query("SELECT epro_etl.add_edit_check('MOOD', 'try', 'mood02 <> 0 OR public.seems_harmless(''$what'')')");
			$super->query('SET ROLE operator');
			is(load($super, $topology, 10), 'succeeded', "$topology, a rule tries: $what");
			is($look->query(q{SELECT string_agg(DISTINCT message, ' ') FROM epro_etl.finding WHERE run_id = (SELECT max(run_id) FROM epro_etl.run_ledger) AND rule = 'try'}),
				$loads ? '' : "raised an error (SQLSTATE $refused{$what})", "$topology, $what: what became of it");
			is($look->query('SELECT count(*) FROM mood_sink'), $loads ? 10 : 7, "$topology, $what: what it judged");
			is($look->query(q{SELECT (SELECT count(*) FROM trophy), to_regclass('public.made') IS NULL}), '0|t', "$topology, $what: nothing was done");
			is($super->query(q{SELECT current_user, current_setting('search_path') <> 'nowhere'}), 'operator|t', "$topology, $what: the session is what it was");
			$super->close;
		}
		oracle_ok($look, "$topology, rules that try");
	}
	$look->query(q{DROP TRIGGER still ON mood_sink; SELECT epro_etl.remove_edit_check('MOOD', 'try')});
	return;
}

# Maintenance runs functions of a table's owner, as that one, in a superuser's
# session; a run from there is its owner's as well, and there is no way back.
sub restricted
{
	$look->query(q{
		CREATE FUNCTION goes_back() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			BEGIN RESET ROLE; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
			BEGIN RESET SESSION AUTHORIZATION; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
			IF current_user <> 'operator' THEN INSERT INTO public.trophy VALUES (current_user); END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER goes_back BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION goes_back();
		GRANT CREATE ON SCHEMA public TO operator;
		SET ROLE operator;
		CREATE TABLE bait (a integer); INSERT INTO bait VALUES (1);
		CREATE FUNCTION bite(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN PERFORM epro_etl.run('mood', workers => 1); RETURN 1; END $$;
		CREATE INDEX bait_index ON bait (bite(a));
		RESET ROLE});
	foreach my $maintenance ('REINDEX INDEX bait_index', 'ANALYZE bait', 'CREATE INDEX CONCURRENTLY ON bait (bite(a))', 'VACUUM FULL bait')
	{
		restage($look, 1, 20);
		$look->try($maintenance);
		is($look->query('SELECT count(*) FROM trophy'), 0, "$maintenance: nobody came back as who maintains");
		is($look->query(q{SELECT string_agg(DISTINCT current_user_name, ' ') FROM epro_etl.run_history}), 'operator', "$maintenance: the runs are its owner's") if $look->query('SELECT count(*) FROM epro_etl.run_history') > 0;
		is(survivors($look), 0, "$maintenance: no worker is left");
	}
	$look->query('DROP TABLE bait; DROP TRIGGER goes_back ON mood_sink');
	return;
}

# A command for the key that hangs ends with whoever waits for it.
sub key_command
{
	my $super = EproTest::Psql->new($node);

	restage($look, 1, 20);
	$super->query(q{SET epro_etl.key_file = ''; SET epro_etl.key_command = 'exec sleep 600'});
	foreach my $workers (0, 2)
	{
		$super->query(q{SET statement_timeout = '300ms'});
		is(sqlstate(($super->try("SELECT epro_etl.run('mood', workers => $workers)"))[1]), '57014', "$workers workers, a key command that hangs: statement_timeout");
		$super->query('RESET statement_timeout');
		is(survivors($look), 0, "$workers workers, a key command that hangs: no worker is left");
	}
	is(sqlstate(($super->try(q{SELECT epro_etl.run('mood', workers => 2, timeout => '300 ms')}))[1]), 'EP001', '2 workers, a key command that hangs: timeout');
	is(survivors($look), 0, 'a key command that hangs: no worker is left');
	is($look->query('SELECT count(*) FROM staging'), 20, 'a key command that hangs: nothing moved');
	$super->close;
	return;
}

# What is temporary is its session's: nobody else's run reads it or writes there.
sub temporary
{
	my $super = EproTest::Psql->new($node);

	$super->query(q{
		CREATE TEMP TABLE passing (LIKE staging INCLUDING ALL);
		INSERT INTO passing SELECT 1, 'ST01', 'MOOD', 'S', 'V', now(), '{"mood01": 1}';
		CREATE TEMP TABLE passing_sink (source_id bigint, mood01 int);
		SELECT epro_etl.create_pipeline('passing', 'passing', '{"id": "response_id"}');
		SELECT epro_etl.add_sink('passing', 'MOOD', 'passing_sink')});
	foreach my $workers (0, 1)
	{
		is(sqlstate(($look->try("SELECT epro_etl.run('passing', workers => $workers)"))[1]), '0A000', "$workers workers: another session's temporary source is refused");
	}
	foreach my $session ($look, $super)
	{
		is(sqlstate(($session->try(q{SELECT epro_etl.start_stream('passing')}))[1]), '0A000', 'nor is there a stream of it, ' . ($session == $look ? "another session's" : "one's own"));
		$session->query(q{SELECT epro_etl.stop_stream('passing')});
	}
	is($super->query('SELECT (SELECT count(*) FROM passing), (SELECT count(*) FROM passing_sink)'), '1|0', 'nothing moved');
	is(($super->try(q{SELECT status, loaded FROM epro_etl.run('passing', workers => 1)}))[0], 'succeeded|1', 'its own session runs it, inline');
	is($super->query('SELECT (SELECT count(*) FROM passing), (SELECT count(*) FROM passing_sink)'), '0|1', 'it has arrived');

	# a plain source, and a sink that nobody else may write
	$super->query(q{
		SELECT epro_etl.drop_pipeline('passing');
		SELECT epro_etl.create_pipeline('passing', 'staging', '{"id": "response_id"}');
		SELECT epro_etl.add_sink('passing', 'MOOD', 'passing_sink')});
	foreach my $workers (0, 1)
	{
		restage($look, 1, 20);
		is(sqlstate(($look->try("SELECT epro_etl.run('passing', workers => $workers)"))[1]), '0A000', "$workers workers: another session's temporary sink is refused");
		is($look->query('SELECT count(*) FROM staging'), 20, "$workers workers: and nothing moved");
		is($super->query('SELECT count(*) FROM passing_sink'), 1, "$workers workers: another session's temporary sink is not written");
		is($look->query('SELECT (SELECT count(*) FROM staging) + (SELECT count(*) FROM epro_etl.quarantine)'), 20, "$workers workers: and nothing is lost");
		oracle_ok($look, "$workers workers, another session's temporary sink");
	}
	is(sqlstate(($super->try(q{SELECT epro_etl.run('passing', workers => 1)}))[1]), '0A000', 'nor do workers write the one of their own caller');
	is($super->query(q{SELECT status, loaded FROM epro_etl.run('passing', workers => 0)}), 'succeeded|20', 'who does, inline');
	$look->query(q{SELECT epro_etl.drop_pipeline('passing')});
	$super->close;
	return;
}

# Who may create a schema has made ours before the extension: it is not adopted,
# and the launcher, a superuser, does not read what only bears a name of ours.
sub prepared
{
	my $operator = EproTest::Psql->new($node, user => 'operator');
	my $lure;

	$look->query('CREATE DATABASE lure OWNER other');
	$lure = EproTest::Psql->new($node, dbname => 'lure', user => 'other');
	$lure->query(q{
		CREATE TABLE caught (who name); GRANT INSERT ON caught TO PUBLIC;
		CREATE FUNCTION bite() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.caught VALUES (current_user); RETURN true; END $$;
		CREATE SCHEMA epro_etl;
		CREATE VIEW epro_etl.stream AS SELECT 1::bigint AS pipeline_id, 10::oid AS login, 10::oid AS role WHERE public.bite();
		CREATE TABLE epro_etl.run_ledger (a int)});
	$lure->close;
	my $super = EproTest::Psql->new($node, dbname => 'lure');
	is(sqlstate(($super->try('CREATE EXTENSION epro_etl'))[1]), '42P06', 'a schema that is there is not adopted');
	is(sqlstate(($super->try('CREATE EXTENSION epro_etl SCHEMA public'))[1]), '0A000', 'nor is there another place for it');
	$super->close;

	# the launcher goes through all databases before it starts a stream
	restage($look, 1, 20);
	ok(start_stream($operator), 'a stream runs');
	$_->close foreach ($operator, $look);
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'epro_etl'\n");
	$node->restart;
	$look = observer($node);
	ok(await_stream($look, q{state = 'running'}), 'it runs again after a restart');
	is($node->safe_psql('lure', 'SELECT count(*) FROM caught'), 0, 'nobody was caught');
	stop_stream_ok($look, 'after a restart');
	oracle_ok($look, 'after a restart');
	$look->query('DROP DATABASE lure');
	return;
}
