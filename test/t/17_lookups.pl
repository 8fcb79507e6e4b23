# Edit checks that ask a reference, here on two other servers: who answers in
# time has a say, who does not slows down only what needs it. What gets no answer
# is deferred, rejected or warned about, as declared; what is deferred stays in
# the source, once, and is loaded when there is an answer.
#
# A registry knows persons, and does with a question what its table says: waits,
# sleeps, dies, raises. It counts the questions with a sequence, which no rollback
# turns back. The second server knows sites, for the other form.
#
# What the other server logs of itself is its own affair, but for what it is sent.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use RemoteTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# In no other text of this test: what is found of it has leaked.
my $marker = 'Zq8Planted';

# On the server that is asked: a question is a row of the view "registry".
my $there_sql = <<'SQL';
CREATE SEQUENCE questions;
CREATE TABLE person (id int PRIMARY KEY, code text, enrolled boolean, does text, ms int);
INSERT INTO person SELECT g, 'code ' || g, true, NULL, 0 FROM generate_series(0, 199) g;
CREATE FUNCTION ask(who int) RETURNS boolean LANGUAGE plpgsql SET search_path = public, pg_catalog AS $$
DECLARE
    p person;
    until timestamptz;
BEGIN
    PERFORM nextval('questions');
    SELECT * INTO p FROM person WHERE id = who;
    IF p.does = 'sleep' THEN
        PERFORM pg_sleep(p.ms / 1000.0);
    ELSIF p.does = 'wait' THEN
        PERFORM pg_advisory_xact_lock_shared(81, who);
    ELSIF p.does = 'raise' THEN
        RETURN 1 / (who - who) = 1;
    ELSIF p.does = 'stubborn' THEN
        until := clock_timestamp() + p.ms * interval '1 ms';
        WHILE clock_timestamp() < until LOOP
            BEGIN
                PERFORM pg_sleep(extract(epoch FROM until - clock_timestamp()));
            EXCEPTION WHEN query_canceled THEN
                NULL;
            END;
        END LOOP;
    END IF;
    RETURN p.enrolled;
END $$;
CREATE VIEW registry AS SELECT id, code, ask(id) AS enrolled FROM person;
SQL

my $site_sql = 'CREATE TABLE site (id int PRIMARY KEY); INSERT INTO site SELECT generate_series(0, 4)';

# Here: the other form, and functions that a lookup asks on the spot.
my $here_sql = <<"SQL";
SELECT epro_etl.register_form('AE', '{"type": "object", "properties": {"site": {"type": "integer"}, "note": {"type": "string"}}}');
SELECT epro_etl.create_sink('mood', 'AE', 'ae_sink');
CREATE EXTENSION postgres_fdw;

CREATE TABLE known (id int PRIMARY KEY);
INSERT INTO known SELECT generate_series(0, 19);
-- waits for whoever holds the lock, and says yes
CREATE FUNCTION hold(who bigint) RETURNS boolean STABLE LANGUAGE plpgsql SET search_path = pg_catalog AS \$\$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(82, who::int);
    RETURN true;
END \$\$;

CREATE FUNCTION put(first bigint, last bigint, form text DEFAULT 'MOOD', people int DEFAULT 20) RETURNS void LANGUAGE sql AS \$\$
    WITH made AS (
        INSERT INTO staging
        SELECT g, 'ST01', form, '$marker subject ' || g % 97, 'V1', '2026-01-01 08:00+00',
               CASE form WHEN 'MOOD' THEN jsonb_build_object('mood01', g % 4, 'mood02', g % people, 'note', '$marker note ' || g)
                         ELSE jsonb_build_object('site', g % 5, 'note', '$marker note ' || g) END
        FROM generate_series(first, last) g
        RETURNING response_id, payload)
    INSERT INTO put_in (response_id, payload) SELECT response_id, payload FROM made;
\$\$;
SQL

my $registry = other_server('registry', $there_sql);
my $sites = other_server('sites', $site_sql);
my $node = create_node('here', conf => <<'CONF');
epro_etl.naptime = '50ms'
epro_etl.batch_size = 50
client_connection_check_interval = '50ms'
CONF
create_fixture($node);
$node->safe_psql('postgres', $here_sql);
link_server('registry', $registry, 'registry', 'id int, code text, enrolled boolean');
link_server('sites', $sites, 'site', 'id int');
my $look = reach($node);
my $two = reach($node);
my $there = reach($registry);

my $enrolled = '(SELECT r.enrolled FROM public.registry r WHERE r.id = mood02)';

my @parts = qw(slow all_slow policies several circuit says raises wrong stopped stopped_between killed down_inline lost_at_release lost_at_commit once_elsewhere streams beside ends
  ends_inline ends_while_letting_go ends_behind_a_block two_runs changed changed_by_sql large dry snapshot requeued published planted flat);
parts('main', @parts);

$_->close foreach ($look, $two, $there);
$_->stop('fast') foreach ($node, $registry, $sites);
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/, 'no process crashed');
done_testing();

# ---- the registry is slow ----

# 100 ms under a budget of 50 ms, for some of the persons.
sub slow
{
	my $name = 'some are slow';
	my ($caller, $out, $error, $others);

	# a machine that is busy may let other questions wait, too: then again
	foreach (1 .. 5)
	{
		anew();
		lookups("timeout => '50 ms'");
		put_all(1, 400);
		does('sleep', '3, 7', 100);
		$caller = EproTest::Psql->new($node);
		# the remotes are looked at as soon as the run has returned
		($out, $error) = $caller->try(run(workers => 4));
		is(asking(), 0, "$name: nothing is asked any more");
		$others = $look->query(q{SELECT count(*) FROM staging WHERE (payload->>'mood02')::int NOT IN (3, 7)});
		last if $others eq '0';
		note("$others others were deferred as well: again");
		$caller->close;
	}
	is($error, '', "$name: the run succeeds");
	is($out, 'succeeded|500|460|0|40', "$name: exactly those of the slow are deferred");
	is($others, 0, "$name: all others have left the source");
	deferred_ok($name, 40);
	is($look->query('SELECT count(*) FROM ae_sink'), 100, "$name: the other form is loaded");
	all_well($name);

	does(undef, '3, 7');
	lookups("timeout => '20 s'");
	is($caller->query(run(workers => 4)), 'succeeded|40|40|0|0', "$name: fast again, they are loaded");
	all_well("$name, again");
	is(left(), 0, "$name: nothing is left");
	$caller->close;
	return;
}

# The whole registry: the other form does not wait for it.
sub all_slow
{
	my $name = 'all are slow';

	anew();
	lookups("timeout => '50 ms'");
	put_all(1, 400);
	does('sleep', 'ALL', 100);
	my $before = questions();
	is($look->query(run(workers => 4)), 'succeeded|500|100|0|400', "$name: all that ask are deferred");
	is(asking(), 0, "$name: nothing is asked any more");
	# 4 processes, 3 questions each until the circuit opens, and one after each pause
	cmp_ok(questions() - $before, '<=', 24, "$name: few questions were asked");
	deferred_ok($name, 400);
	all_well($name);
	does(undef, 'ALL');
	# each worker connects within the budget, which is no matter here
	lookups("timeout => '20 s'");
	is($look->query(run(workers => 4)), 'succeeded|400|400|0|0', "$name: fast again, they are loaded");
	all_well("$name, again");
	return;
}

# ---- what follows without an answer, and with one ----

sub policies
{
	foreach my $policy (
		[ 'reject', 'succeeded|40|36|4|0', 'error' ],
		[ 'warn', 'succeeded|40|40|0|0', 'warning' ],
		[ 'defer', 'succeeded|40|36|0|4', 'information' ])
	{
		my ($name, $expected, $severity) = @$policy;

		anew();
		lookups("timeout => '200 ms', on_timeout => '$name'");
		$look->query('SELECT put(1, 40)');
		does('wait', '3, 7');
		$there->query('SELECT pg_advisory_lock(81, 3), pg_advisory_lock(81, 7)');
		is($look->query(run(workers => 1)), $expected, "$name: what becomes of the responses");
		is(asking(), 0, "$name: nothing is asked any more");
		$there->query('SELECT pg_advisory_unlock_all()');
		is($look->query('SELECT count(*), count(DISTINCT source_id), min(rule), min(severity), max(severity) FROM epro_etl.finding WHERE ' . unanswered()),
			"4|4|enrolled|$severity|$severity", "$name: a finding each");
		like($look->query('SELECT string_agg(DISTINCT message, $$ # $$) FROM epro_etl.finding'),
			qr/did not answer within 200 ms/, "$name: it says why");
		is($look->query('SELECT warned FROM epro_etl.run_history'), $name eq 'warn' ? 4 : 0, "$name: the warned are counted");
		all_well($name);
	}
	return;
}

# Several lookups of one form: each has its own policy and circuit, and what gets an
# answer elsewhere does not undo what is said.
sub several
{
	my $name = 'several';

	anew();
	lookups("timeout => '150 ms'");
	$look->query(q{SELECT epro_etl.add_lookup('MOOD', 'second', '(SELECT r.enrolled FROM public.registry r WHERE r.id = mood01)', timeout => '150 ms', on_timeout => 'warn'),
		epro_etl.add_lookup('MOOD', 'third', 'mood02 IN (SELECT k.id FROM public.known k WHERE k.id <> 11)')});
	does('sleep', '3, 7', 20000);
	$look->query('SELECT put(1, 40)');
	is($look->query(run(workers => 1)), 'succeeded|40|34|2|4', "$name: what becomes of the responses");
	is($look->query(q{SELECT string_agg(source_id || found, '; ' ORDER BY source_id::int) FROM
			(SELECT source_id, string_agg(concat(' ', rule, ' ', severity), ',' ORDER BY rule) AS found FROM epro_etl.finding GROUP BY source_id) f}),
		'3 enrolled information; 7 enrolled information; 11 second warning, third error; 15 second warning; 19 second warning; '
		  . '23 enrolled information; 27 enrolled information; 31 second warning, third error; 35 second warning; 39 second warning', "$name: the findings");
	all_well($name);
	$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'second'), epro_etl.remove_edit_check('MOOD', 'third')});
	return;
}

# After three questions in a row the registry rests for a second; then one question
# says whether it goes on to.
sub circuit
{
	my $name = 'circuit';
	my $offset = -s $node->logfile;

	anew();
	lookups("timeout => '50 ms'");
	$look->query('SELECT put(1, 200)');
	does('sleep', 'ALL', 20000);
	my $before = questions();
	my $began = time();
	# in one process, so that one circuit is seen
	is($look->query(run(workers => 1)), 'succeeded|200|0|0|200', "$name: all are deferred");
	my $took = time() - $began;
	cmp_ok(questions() - $before, '<=', 3 + $took, "$name: three questions, and one a pause");
	like(log_since($node, $offset),
		qr/LOG:  epro_etl lookup "enrolled" of form "MOOD" was not answered 3 times in a row \(SQLSTATE 57014\), and is asked again in 1000 ms/,
		"$name: it says so in the log");
	like($look->query('SELECT string_agg(DISTINCT message, $$ # $$) FROM epro_etl.finding'),
		qr/did not answer within 50 ms # .*not asked for now/, "$name: and in the findings");

	# a response that waits in the sink gives the pause its time, then it is asked
	# again: first in vain, which doubles the pause, then not
	anew();
	lookups("timeout => '150 ms'");
	$look->query('SELECT put(1, 9, $$AE$$), put(10, 59), put(60, 69, $$AE$$), put(70, 119), put(120, 129, $$AE$$), put(130, 179)');
	$look->query('CREATE TRIGGER at_gate BEFORE INSERT ON ae_sink FOR EACH ROW EXECUTE FUNCTION at_gate()');
	close_gate($look, 65);
	close_gate($look, 125);
	does('sleep', 'ALL', 20000);
	$offset = -s $node->logfile;
	my $caller = reach($node);
	$caller->send(run(workers => 1));
	ok(await_gate($look), "$name: the first pause begins");
	sleep(1.1);
	gate_open_for($look, 65);
	ok(await_gate($look), "$name: the second pause begins") if until_true($look, q{SELECT count(*) FROM ae_sink}, 19);
	like(log_since($node, $offset), qr/not answered 4 times in a row .*, and is asked again in 2000 ms/, "$name: the pause is twice as long");
	does(undef, 'ALL');
	sleep(2.1);
	open_gates($look);
	my ($out) = $caller->wait;
	like($out, qr/^succeeded\|179\|\d+\|0\|\d+$/, "$name: the run succeeds");
	is($look->query(q{SELECT count(*) FROM mood_sink WHERE source_id BETWEEN 151 AND 179}), 29, "$name: it closes when there is an answer");
	$look->query('DROP TRIGGER at_gate ON ae_sink');
	all_well($name);
	$caller->close;
	return;
}

# It says yes, no, or nothing.
sub says
{
	my $name = 'says';

	anew();
	lookups("timeout => '20 s', severity => 'error'");
	$there->query('UPDATE person SET enrolled = CASE id WHEN 4 THEN false WHEN 5 THEN NULL ELSE true END');
	$look->query('SELECT put(1, 40)');
	# without the item there is no question
	$look->query(q{UPDATE staging SET payload = payload - 'mood02' WHERE response_id = 8});
	$look->query(q{UPDATE staging SET payload = jsonb_set(payload, '{mood02}', '999') WHERE response_id = 9});
	my $before = questions();
	is($look->query(run(workers => 1)), 'succeeded|40|38|2|0', "$name: who is not enrolled is rejected");
	is($look->query(q{SELECT string_agg(source_id || ' ' || kind, ', ' ORDER BY source_id::int) FROM epro_etl.finding}),
		'4 check, 5 not evaluated, 8 not evaluated, 9 not evaluated, 24 check, 25 not evaluated', "$name: the findings");
	is(questions() - $before, 20, "$name: each person is asked about once");
	all_well($name);

	# a question that would find nothing is not a no
	anew();
	lookups("timeout => '20 s'", 'EXISTS (SELECT FROM public.registry r WHERE r.id = mood02 AND r.enrolled)');
	$look->query('SELECT put(1, 40)');
	$look->query(q{UPDATE staging SET payload = payload - 'mood02' WHERE response_id = 8});
	is($look->query(run(workers => 1)), 'succeeded|40|36|4|0', "$name: nobody found is a no");
	is($look->query(q{SELECT string_agg(source_id || ' ' || kind, ', ' ORDER BY source_id::int) FROM epro_etl.finding}),
		'4 check, 5 check, 8 not evaluated, 24 check, 25 check', "$name: without the item it is not asked");

	# only who is worth a question is asked about, and what is said is what was declared
	anew();
	$there->query('UPDATE person SET enrolled = false WHERE id < 10');
	lookups("timeout => '20 s', severity => 'warning', condition => 'mood01 = 3', message => 'not in the registry'");
	$look->query('SELECT put(1, 40)');
	$before = questions();
	is($look->query(run(workers => 1)), 'succeeded|40|40|0|0', "$name: a warning loads");
	is(questions() - $before, 5, "$name: under a condition, few are asked about");
	is($look->query(q{SELECT string_agg(concat_ws(' ', source_id, severity, message), ', ' ORDER BY source_id::int) FROM epro_etl.finding}),
		'3 warning not in the registry, 7 warning not in the registry, 23 warning not in the registry, 27 warning not in the registry', "$name: as declared");
	$there->query('UPDATE person SET enrolled = true');
	return;
}

# An error of the question rejects, whatever the policy; the others go on.
sub raises
{
	my $name = 'raises';

	foreach my $where ([ 'there', $enrolled ], [ 'here', '(SELECT 1 / (k.id - 6) <= 1 FROM public.known k WHERE k.id = mood02)' ])
	{
		my ($place, $query) = @$where;

		anew();
		lookups("timeout => '20 s', severity => 'warning'", $query);
		does('raise', '6');
		$look->query('SELECT put(1, 40)');
		is($look->query(run(workers => 2)), 'succeeded|40|38|2|0', "$name $place: rejected");
		is($look->query(q{SELECT string_agg(concat_ws(' ', source_id, kind, rule, severity, message), ', ' ORDER BY source_id::int) FROM epro_etl.finding WHERE severity = 'error'}),
			'6 error enrolled error raised an error (SQLSTATE 22012), 26 error enrolled error raised an error (SQLSTATE 22012)', "$name $place: the findings");
		all_well("$name $place");
	}
	return;
}

# What cannot be asked as it is ends the run, and says which lookup it was.
sub wrong
{
	my @ways = (
		[ 'dropped there', sub { $there->query('ALTER VIEW registry RENAME TO gone') }, '42P01', sub { $there->query('ALTER VIEW gone RENAME TO registry') } ],
		[ 'without privilege there', sub { $there->query('ALTER VIEW registry OWNER TO nobody; REVOKE SELECT ON registry FROM reader') },
			'42501', sub { $there->query('ALTER VIEW registry OWNER TO CURRENT_USER; GRANT SELECT ON registry TO reader') }, 'reader' ],
		[ 'dropped here', sub { $look->query('ALTER FOREIGN TABLE registry RENAME TO gone') }, '42P01', sub { $look->query('ALTER FOREIGN TABLE gone RENAME TO registry') } ],
	);

	$there->query('CREATE ROLE nobody; CREATE ROLE reader LOGIN; GRANT SELECT ON registry TO reader');
	foreach my $way (@ways)
	{
		my ($name, $break, $sqlstate, $repair, $user) = @$way;

		anew();
		lookups("timeout => '20 s'");
		put_all(1, 200);
		$look->query("ALTER USER MAPPING FOR CURRENT_USER SERVER registry OPTIONS (SET user '$user')") if $user;
		$break->();
		foreach my $workers (2, 0)
		{
			my ($out, $error) = $look->try(run(workers => $workers));
			is(sqlstate($error), $sqlstate, "$name, $workers workers: the SQLSTATE");
			like($error, qr/lookup "enrolled"/, "$name, $workers workers: the lookup's name");
		}
		is($look->query(q{SELECT (SELECT count(*) FROM staging WHERE form = 'MOOD'), (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.quarantine)}),
			'200|0|0', "$name: nothing has moved");
		oracle($name);
		$repair->();
		$look->query("ALTER USER MAPPING FOR CURRENT_USER SERVER registry OPTIONS (SET user 'postgres')") if $user;
	}

	# dropped in the midst of a run
	anew();
	$look->query('CREATE TABLE reference AS SELECT generate_series(0, 199) AS id');
	lookups("timeout => '20 s'", 'mood02 IN (SELECT k.id FROM public.reference k)');
	$look->query('SELECT put(1, 100, people => 200)');
	close_gate($look, 25);
	my $caller = reach($node);
	$caller->send(run(workers => 1));
	ok(await_gate($look), 'dropped meanwhile: the first chunk is stored');
	$two->send('DROP TABLE reference');
	until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'relation'});
	open_gates($look);
	my ($out, $error) = $caller->wait;
	$two->wait;
	is(sqlstate($error), '42P01', 'dropped meanwhile: the SQLSTATE');
	like($error, qr/lookup "enrolled"/, 'dropped meanwhile: the name');
	is($look->query('SELECT count(*) FROM mood_sink'), 50, 'dropped meanwhile: the chunk before stays');
	oracle('dropped meanwhile');
	$caller->close;

	# the caller may not read it: who asks is the caller
	$look->query(q{CREATE ROLE runner LOGIN; CREATE TABLE secret AS SELECT * FROM known;
		GRANT USAGE ON SCHEMA epro_etl, public TO runner; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO runner;
		GRANT SELECT ON ALL TABLES IN SCHEMA epro_etl TO runner; GRANT ALL ON staging, mood_sink, ae_sink TO runner});
	anew();
	lookups("timeout => '20 s'", 'mood02 IN (SELECT k.id FROM public.secret k)');
	$look->query('SELECT put(1, 100)');
	my $runner = EproTest::Psql->new($node, user => 'runner');
	foreach my $workers (1, 0)
	{
		($out, $error) = $runner->try(run(workers => $workers));
		is(sqlstate($error), '42501', "a reference of others, $workers workers: the SQLSTATE");
		like($error, qr/lookup "enrolled"/, "a reference of others, $workers workers: the name");
	}
	is($look->query('SELECT count(*) FROM staging'), 100, 'a reference of others: nothing has moved');
	$look->query('GRANT SELECT ON secret TO runner');
	is($runner->query(run(workers => 1)), 'succeeded|100|100|0|0', 'a reference of others, granted: loaded');
	$runner->close;
	return;
}

# ---- the registry goes away ----

# Stopped while a question of a middle chunk is on its way.
sub stopped
{
	my $name = 'stopped meanwhile';

	anew();
	lookups("timeout => '20 s'");
	$look->query('SELECT put(1, 200, people => 200)');
	ask_and_wait(my $caller = reach($node), 120, workers => 1);
	stop_registry();
	my ($out, $error) = $caller->wait;
	is($error, '', "$name: the run succeeds");
	# two chunks were committed before; of the third, what was answered in it is asked anew
	like($out, qr/^succeeded\|200\|1\d\d\|0\|\d+$/, "$name: it was there for a while");
	deferred_ok($name, left());
	all_well($name);
	is(loaded_of($out) + left(), 200, "$name: loaded or left");
	start_registry();
	my $left = left();
	is($caller->query(run(workers => 2)), "succeeded|$left|$left|0|0", "$name: back again, all are loaded");
	is(left(), 0, "$name: nothing is left");
	all_well("$name, again");
	$caller->close;

	# not there from the beginning
	$name = 'not there';
	anew();
	lookups("timeout => '5 s'");
	put_all(1, 200);
	stop_registry();
	is($look->query(run(workers => 4)), 'succeeded|300|100|0|200', "$name: the others are loaded");
	like($look->query('SELECT string_agg(DISTINCT message, $$ # $$) FROM epro_etl.finding'), qr/could not be asked \(SQLSTATE 08001\)/, "$name: it says why");
	deferred_ok($name, 200);
	all_well($name);
	start_registry();
	is($look->query(run(workers => 4)), 'succeeded|200|200|0|0', "$name: back again, all are loaded");
	all_well("$name, again");
	return;
}

# Stopped when all of a chunk's questions have been answered, and before its commit.
sub stopped_between
{
	my $name = 'stopped before the commit';

	anew();
	lookups("timeout => '20 s'");
	$look->query('SELECT put(1, 200, people => 200)');
	close_gate($look, 70);
	my $caller = reach($node);
	$caller->send(run(workers => 1));
	ok(await_gate($look), "$name: the second chunk is being stored");
	stop_registry();
	open_gates($look);
	my ($out, $error) = $caller->wait;
	is($error, '', "$name: the run succeeds");
	like($out, qr/^succeeded\|200\|\d+\|0\|\d+$/, "$name: what was answered is loaded or deferred");
	oracle($name);
	start_registry();
	$caller->query(run(workers => 1));
	is(left(), 0, "$name: back again, all are loaded");
	all_well("$name, again");
	$caller->close;
	return;
}

# The process that is asked ends in the midst of a question.
sub killed
{
	foreach my $policy ([ 'defer', 49 ], [ 'warn', 200 ], [ 'reject', 1 ])
	{
		my ($on_timeout) = @$policy;
		my $name = "its process killed, $on_timeout";

		anew();
		lookups("timeout => '20 s', on_timeout => '$on_timeout'");
		$look->query('SELECT put(1, 200)');
		ask_and_wait(my $caller = reach($node), 7, workers => 1);
		is($there->query(q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'advisory'}), 1, "$name: killed");
		$there->query('SELECT pg_advisory_unlock_all()');
		my ($out, $error) = $caller->wait;
		is($error, '', "$name: the run succeeds");
		my ($status, $claimed, $loaded, $rejected, $deferred) = split /\|/, $out;
		is("$status $claimed", 'succeeded 200', "$name: all were looked at");
		if ($on_timeout eq 'defer')
		{
			cmp_ok($deferred, '>', 0, "$name: some are deferred");
			deferred_ok($name, $deferred);
		}
		elsif ($on_timeout eq 'warn')
		{
			is("$loaded $rejected $deferred", '200 0 0', "$name: all are loaded");
		}
		else
		{
			cmp_ok($rejected, '>', 0, "$name: some are rejected");
			is($deferred, 0, "$name: none is deferred");
		}
		all_well($name);
		does(undef, 'ALL');
		$caller->query(run(workers => 2));
		is(left(), 0, "$name: then all are loaded");
		all_well("$name, again");
		$caller->close;
	}
	return;
}

# In the caller's own transaction the caller commits: where a connection was lost,
# postgres_fdw refuses that. Nothing is lost by it.
sub down_inline
{
	my $name = 'inline, its process killed';

	anew();
	lookups("timeout => '20 s'");
	$look->query('SELECT put(1, 100)');
	ask_and_wait(my $caller = reach($node), 7, workers => 0);
	$there->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'});
	$there->query('SELECT pg_advisory_unlock_all()');
	my ($out, $error) = $caller->wait;
	like(sqlstate($error), qr/^08/, "$name: the commit is refused");
	is($look->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.run_ledger)'), '100|0|0', "$name: all is as it was");
	does(undef, 'ALL');
	is($caller->query(run(workers => 0)), 'succeeded|100|100|0|0', "$name: the session goes on, and all are loaded");
	all_well($name);

	# not there at all: no connection, nothing to refuse
	$name = 'inline, not there';
	$caller->close;
	$caller = reach($node);
	anew();
	lookups("timeout => '5 s'");
	put_all(1, 100);
	stop_registry();
	is($caller->query(run(workers => 0)), 'succeeded|150|50|0|100', "$name: deferred");
	deferred_ok($name, 100);
	all_well($name);
	start_registry();
	is($caller->query(run(workers => 0)), 'succeeded|100|100|0|0', "$name: back again, all are loaded");
	all_well("$name, again");
	$caller->close;
	return;
}

# All questions of a chunk were answered, and then the other process ends: the
# judging's subtransaction cannot, and the chunk is done again.
sub lost_at_release
{
	my $name = 'its process killed behind the last question';

	anew();
	lookups("timeout => '20 s'");
	$look->query('CREATE TABLE elsewhere (source_id bigint)');
	$look->query(q{SELECT epro_etl.add_sink('mood', 'MOOD', 'elsewhere', condition => 'public.hold(mood02)')});
	$look->query('SELECT put(1, 40, people => 200)');
	$two->query('SELECT pg_advisory_lock(82, 40)');
	my $caller = reach($node);
	$caller->send(run(workers => 1));
	ok(await_hold($look), "$name: the last response waits");
	is($there->query(q{SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE application_name = 'postgres_fdw' OR application_name LIKE 'epro%'}), 1, "$name: killed");
	$two->query('SELECT pg_advisory_unlock(82, 40)');
	my ($out, $error) = $caller->wait;
	is($error, '', "$name: the run succeeds");
	like($out, qr/^succeeded\|40\|40\|/, "$name: the counts");
	oracle($name);
	is(left(), 0, "$name: all are loaded");
	$look->query(q{SELECT epro_etl.remove_sink('mood', 'MOOD', 'elsewhere'); DROP TABLE elsewhere});
	$caller->close;
	return;
}

# All questions were answered, and then the other process ends: the commit here
# fails, and is done again.
sub lost_at_commit
{
	my $name = 'its process killed before the commit';

	anew();
	lookups("timeout => '20 s'");
	$look->query('SELECT put(1, 200, people => 200)');
	close_gate($look, 70);
	my $caller = reach($node);
	$caller->send(run(workers => 1));
	ok(await_gate($look), "$name: the second chunk is being stored");
	is($there->query(q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'postgres_fdw' OR application_name LIKE 'epro%'}), 1, "$name: killed");
	open_gates($look);
	my ($out, $error) = $caller->wait;
	is($error, '', "$name: the run succeeds");
	like($out, qr/^succeeded\|200\|/, "$name: the counts");
	oracle($name);
	$caller->query(run(workers => 1));
	is(left(), 0, "$name: then all are loaded");
	$caller->close;
	return;
}

# A sink on yet another server, which does not mind twins: who was not asked to the
# end is no reason to send it a row twice.
sub once_elsewhere
{
	my $name = 'a sink elsewhere';
	my $elsewhere = reach($sites);

	$elsewhere->query('CREATE TABLE far_sink (source_id bigint, run_id bigint)');
	$look->query(q{CREATE FOREIGN TABLE far_sink (source_id bigint, run_id bigint) SERVER sites; SELECT epro_etl.add_sink('mood', 'MOOD', 'far_sink')});
	# which server commits first is for postgres_fdw to say, by a number of its own
	foreach my $turn (1 .. 8)
	{
		$elsewhere->query('TRUNCATE far_sink');
		anew();
		lookups("timeout => '20 s'");
		$look->query('SELECT put(1, 100)');
		ask_and_wait(my $caller = reach($node), 7, workers => 1);
		$there->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'});
		$there->query('SELECT pg_advisory_unlock_all()');
		my ($out, $error) = $caller->wait;
		is($error, '', "$name, $turn: the run succeeds");
		is($elsewhere->query('SELECT count(*), count(DISTINCT source_id) FROM far_sink'), join('|', (loaded_of($out)) x 2), "$name, $turn: each row is there once");
		all_well("$name, $turn");
		$caller->close;
		$look->query(q{DROP USER MAPPING FOR CURRENT_USER SERVER sites; CREATE USER MAPPING FOR CURRENT_USER SERVER sites OPTIONS (user 'postgres')});
	}
	$look->query(q{SELECT epro_etl.remove_sink('mood', 'MOOD', 'far_sink'); DROP FOREIGN TABLE far_sink});
	$elsewhere->close;
	return;
}

# ---- streams ----

# Those of the slow are many, and are tried again and again: whom the registry
# answers do not wait for them.
sub beside
{
	my $name = 'beside the slow';
	# as long as all of theirs would take, one after the other
	local $EproTest::PATIENCE = 10;

	anew();
	lookups("timeout => '100 ms'");
	does('sleep', '3, 7', 20000);
	$look->query(q{SELECT put(1, 1000); DELETE FROM staging WHERE (payload->>'mood02')::int NOT IN (3, 7);
		DELETE FROM put_in p WHERE NOT EXISTS (SELECT FROM staging s WHERE s.response_id = p.response_id)});
	start_stream($look);
	ok(until_true($look, 'SELECT count(*) > 0 FROM epro_etl.finding'), "$name: they are asked about");
	# persons that it knows nothing of, which is an answer
	$look->query('SELECT put(10000, 10499, people => 100000)');
	ok(until_true($look, 'SELECT count(*) FROM mood_sink', 500), "$name: the others are loaded");
	is(left(), 100, "$name: they are held");
	stop_stream_ok($look, $name);
	all_well($name);
	return;
}

sub streams
{
	my $cut = '{"decode": 1, "validate": 2, "store": 1}';

	foreach my $way ([ 'not cut', undef ], [ 'cut', $cut ], [ 'cut, by SQL', $cut, 1 ])
	{
		my ($which, $stages, $trigger) = @$way;
		my $name = "stream, $which, slow for some";

		anew();
		$look->query(q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
			CREATE TRIGGER nothing BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION nothing()}) if $trigger;
		lookups("timeout => '100 ms'");
		does('sleep', '3, 7', 20000);
		put_all(1, 200);
		ok(start_stream($look, $stages), "$name: it runs");
		ok(arrived(180, 100), "$name: all others are loaded");
		ok(await_stream($look, 'held = 20'), "$name: those of the slow are held");
		is(left(), 20, "$name: they are in the source");
		is($look->query(q{SELECT count(DISTINCT source_id) > 0, bool_and(kind = 'unanswered'), bool_and((SELECT (payload->>'mood02')::int IN (3, 7) FROM put_in WHERE response_id = source_id::bigint)) FROM epro_etl.finding}),
			't|t|t', "$name: findings for them alone");
		# one of the held is corrected, one withdrawn
		$look->query(q{UPDATE staging SET payload = jsonb_set(payload, '{mood02}', '8') WHERE response_id = 3; UPDATE put_in SET payload = jsonb_set(payload, '{mood02}', '8') WHERE response_id = 3;
			DELETE FROM staging WHERE response_id = 7; DELETE FROM put_in WHERE response_id = 7});
		ok(arrived(181, 100), "$name: one that is corrected is loaded");
		does(undef, '3, 7');
		ok(arrived(199, 100), "$name: fast again, they are loaded");
		answers_ok($look, $name);
		is(stream_shows($look, 'held, failures, generations'), '0|0|1', "$name: it never failed");
		stop_stream_ok($look, $name);
		is(asking(), 0, "$name: nothing is asked any more");
		all_well($name);

		if ($trigger)
		{
			$look->query('SET client_min_messages = warning; DROP FUNCTION nothing CASCADE; RESET client_min_messages');
			last;
		}

		# each person is new to the stream, so that each is asked about
		$name = "stream, $which, its process killed";
		anew();
		lookups("timeout => '20 s'");
		start_stream($look, $stages);
		my $caller = reach($node);
		stuck(57, sub { $caller->query('SELECT put(1, 100, people => 200)') });
		is($there->query(q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'advisory'}), 1, "$name: it was there");
		$there->query('SELECT pg_advisory_unlock_all()');
		does(undef, 'ALL');
		ok(arrived(100, 0), "$name: all are loaded");
		is(stream_shows($look, 'failures, generations'), '0|1', "$name: the stream goes on");

		$name = "stream, $which, the server stopped";
		stuck(157, sub { $caller->query('SELECT put(101, 199, people => 200)') });
		stop_registry();
		$look->query(q{SELECT put(401, 450, 'AE')});
		ok(await_stream($look, 'held > 0'), "$name: what asks is held");
		ok(until_true($look, 'SELECT count(*) FROM ae_sink', 50), "$name: the other form goes on");
		is(stream_shows($look, 'failures, generations'), '0|1', "$name: the stream goes on");
		start_registry();
		ok(arrived(199, 50), "$name: back again, all are loaded");
		stop_stream_ok($look, $name);
		is(left(), 0, "$name: nothing is left");
		all_well($name);
		$caller->close;
	}
	return;
}

# ---- the end comes while a question is on its way ----

sub ends
{
	my @ends = (
		[ 'timeout of the run', undef, { timeout => q{'700 ms'} }, 'EP001', 'timed out' ],
		[ 'statement_timeout', q{SET statement_timeout = '700ms'}, {}, '57014', 'timed out' ],
		[ 'cancel', undef, {}, '57014', 'canceled', sub { $look->query('SELECT pg_cancel_backend(' . $_[0]->backend . ')') } ],
		[ 'terminate', undef, {}, '57P01', 'canceled', sub { $look->query('SELECT pg_terminate_backend(' . $_[0]->backend . ')') } ],
		[ 'client disconnect', undef, {}, '', 'canceled', sub { kill 'KILL', $_[0]->client } ],
		[ 'terminate of the worker', undef, {}, '57P01', 'failed', sub { $look->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker'}) } ],
	);

	foreach my $end (@ends)
	{
		my ($name, $before, $arguments, $sqlstate, $status, $now) = @$end;
		my $caller = reach($node);

		anew();
		lookups("timeout => '20 s'");
		$look->query('SELECT put(1, 200, people => 200)');
		$caller->query($before) if $before;
		ask_and_wait($caller, 70, workers => 1, %$arguments);
		$now->($caller) if $now;
		my ($out, $error) = $sqlstate ne '' ? $caller->wait : ('', '');
		# of a session that has ended, psql may hear before it has gone
		until_true($look, 'SELECT count(*) FROM pg_stat_get_activity(' . $caller->backend . ')', 0) if $name =~ /^(?:terminate|client disconnect)$/;
		is(survivors($look), 0, "$name: no worker is left");
		is(asking(), 0, "$name: no question is left");
		is(sqlstate($error), $sqlstate, "$name: the SQLSTATE");
		is(status_of($look), $status, "$name: the ledger");
		$there->query('SELECT pg_advisory_unlock_all()');
		is($look->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.finding)'),
			'150|50|0', "$name: the chunk in flight is back");
		all_well($name);
		$caller->close;
	}
	return;
}

sub ends_inline
{
	my @ends = (
		[ 'timeout of the run', undef, { timeout => q{'500 ms'} }, 'EP001' ],
		[ 'statement_timeout', q{SET statement_timeout = '500ms'}, {}, '57014' ],
		# no longer than the lookup's own: it began before
		[ 'timeout of the run, as long', undef, { timeout => q{'300 ms'} }, 'EP001', undef, '300 ms' ],
		[ 'with_timeout', undef, { within => '400 ms' }, 'EP001' ],
		[ 'cancel', undef, {}, '57014', sub { $look->query('SELECT pg_cancel_backend(' . $_[0]->backend . ')') } ],
	);

	foreach my $end (@ends)
	{
		my ($name, $before, $arguments, $sqlstate, $now, $timeout) = @$end;
		my $caller = reach($node);

		$name = "inline, $name";
		anew();
		lookups("timeout => '" . ($timeout || '20 s') . "'");
		$look->query('SELECT put(1, 200)');
		$caller->query($before) if $before;
		ask_and_wait($caller, 7, workers => 0, %$arguments);
		$now->($caller) if $now;
		my ($out, $error) = $caller->wait;
		is(asking(), 0, "$name: no question is left");
		is(sqlstate($error), $sqlstate, "$name: the SQLSTATE");
		$there->query('SELECT pg_advisory_unlock_all()');
		is($look->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.run_ledger)'),
			'200|0|0', "$name: all is as it was");
		does(undef, 'ALL');
		is($caller->query('RESET statement_timeout; ' . run(workers => 0)), 'succeeded|200|200|0|0', "$name: the session goes on");
		all_well($name);
		$caller->close;
	}
	return;
}

# The question's time is over, and the other server takes its time to let go of
# it: an end that comes then is the caller's, not the question's.
sub ends_while_letting_go
{
	my @ends = (
		[ 'statement_timeout', q{SET statement_timeout = '350ms'}, {}, '57014' ],
		[ 'timeout of the run', undef, { timeout => q{'350 ms'} }, 'EP001' ],
		[ 'with_timeout', undef, { within => '350 ms' }, 'EP001' ],
		[ 'cancel', undef, {}, '57014', sub { $look->query('SELECT pg_cancel_backend(' . $_[0]->backend . ')') } ],
	);

	foreach my $end (@ends)
	{
		my ($what, $before, $arguments, $sqlstate, $now) = @$end;

		foreach my $workers ($sqlstate eq 'EP001' ? (0) : (0, 1))
		{
			my $name = "$what while it lets go, $workers workers";
			my $caller = reach($node);

			anew();
			lookups("timeout => '100 ms'");
			$look->query('SELECT put(1, 40)');
			does('stubborn', '7', 800);
			$caller->query($before) if $before;
			$caller->send(run(workers => $workers, %$arguments));
			until_true($there, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
			# the budget is over by then
			sleep(0.3);
			$now->($caller) if $now;
			my ($out, $error) = $caller->wait;
			is(sqlstate($error), $sqlstate, "$name: the SQLSTATE");
			is($out, '', "$name: no result");
			is($look->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink)'), '40|0', "$name: all is as it was");
			is(survivors($look), 0, "$name: no worker is left");
			is(asking(), 0, "$name: no question is left");
			$caller->close;
		}
	}
	return;
}

# The cancel comes first, and its error so late that the question's time is over:
# a block of PL/pgSQL rolls back on the way, which waits for the other server.
sub ends_behind_a_block
{
	$look->query(q{CREATE OR REPLACE FUNCTION public.behind(id bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
		BEGIN
			RETURN (SELECT r.enrolled FROM public.registry r WHERE r.id = behind.id);
		EXCEPTION WHEN division_by_zero THEN
			RETURN NULL;
		END $$});
	foreach my $end ([ 'statement_timeout', q{SET statement_timeout = '200ms'} ], [ 'cancel', undef, 1 ])
	{
		my ($what, $before, $cancel) = @$end;
		my $name = "$what behind a block";
		my $caller = reach($node);

		anew();
		lookups("timeout => '500 ms'", 'public.behind(mood02)');
		$look->query('SELECT put(1, 20)');
		does('stubborn', '7', 1200);
		$caller->query($before) if $before;
		$caller->send(run(workers => 0));
		until_true($there, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
		$look->query('SELECT pg_cancel_backend(' . $caller->backend . ')') if $cancel;
		my ($out, $error) = $caller->wait;
		is(sqlstate($error), '57014', "$name: the SQLSTATE");
		is($out, '', "$name: no result");
		is($look->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink)'), '20|0', "$name: all is as it was");
		is(asking(), 0, "$name: no question is left");
		$caller->close;
	}
	return;
}

# ---- others at the source ----

# Two runs over one source; each finds something, and the deferred are left once.
sub two_runs
{
	my $name = 'two runs';
	my ($one, $other) = (reach($node), reach($node));

	anew();
	lookups("timeout => '300 ms'");
	does('wait', '3, 7');
	$there->query('SELECT pg_advisory_lock(81, 3), pg_advisory_lock(81, 7)');
	put_all(1, 600);
	$one->send(run(workers => 2));
	$other->send(run(workers => 2));
	my ($out) = $one->wait;
	my ($more) = $other->wait;
	like($_, qr/^succeeded\|/, "$name: both succeed") foreach ($out, $more);
	is(left(), 60, "$name: the deferred are left");
	is(loaded_of($out) + loaded_of($more), 840, "$name: all others are loaded");
	all_well($name);
	$there->query('SELECT pg_advisory_unlock_all()');
	does(undef, 'ALL');
	lookups("timeout => '20 s'");
	$one->send(run(workers => 2));
	$other->send(run(workers => 2));
	($out) = $one->wait;
	($more) = $other->wait;
	$look->query(run(workers => 1));
	is(left(), 0, "$name: then all are loaded");
	all_well("$name, again");
	$_->close foreach ($one, $other);
	return;
}

# Between reading and taking, others lock, update and delete rows.
sub changed
{
	my ($how) = @_;
	my $which = $how ? "by SQL, $how" : 'directly';

	foreach my $workers (1, 0)
	{
		my $name = "changed meanwhile, $which, $workers workers";
		my $caller = reach($node);

		anew();
		lookups("timeout => '20 s'", 'public.hold(mood02)');
		$look->query('SELECT put(1, 40)');
		$look->query('SELECT pg_advisory_lock(82, 5)');
		$caller->send(run(workers => $workers));
		ok(await_hold(), "$name: it asks");
		$two->query(q{BEGIN; SELECT FROM staging WHERE response_id = 11 FOR UPDATE});
		$look->query(q{UPDATE staging SET payload = jsonb_set(payload, '{mood02}', '13') WHERE response_id = 12;
			UPDATE put_in SET payload = jsonb_set(payload, '{mood02}', '13') WHERE response_id = 12});
		$look->query(q{DELETE FROM staging WHERE response_id = 14; DELETE FROM put_in WHERE response_id = 14});
		# deleted, and there anew: another row
		$look->query(q{BEGIN; CREATE TEMP TABLE t AS SELECT * FROM staging WHERE response_id = 15; DELETE FROM staging WHERE response_id = 15; INSERT INTO staging SELECT * FROM t; DROP TABLE t; COMMIT});
		$look->query('SELECT pg_advisory_unlock_all()');
		my ($out, $error) = $caller->wait;
		is($error, '', "$name: the run succeeds");
		is($out, 'succeeded|36|36|0|0', "$name: what was still there is loaded");
		is($look->query('SELECT remaining FROM epro_etl.run_history'), 4, "$name: what was not to be had is counted");
		is($look->query('SELECT string_agg(response_id::text, $$ $$ ORDER BY response_id) FROM staging'), '11 12 15', "$name: the next run's");
		is($two->query('COMMIT; SELECT count(*) FROM staging'), 3, "$name: let go");
		is($caller->query(run(workers => $workers)), 'succeeded|3|3|0|0', "$name: then they are loaded");
		is($look->query('SELECT mood02 FROM mood_sink WHERE source_id = 12'), 13, "$name: as they are now");
		answers_ok($look, $name);
		all_well($name);
		$caller->close;
	}
	return;
}

# A source with triggers, or with policies, is claimed by SQL.
sub changed_by_sql
{
	$look->query('CREATE TABLE leavings (response_id bigint)');
	$look->query(q{CREATE FUNCTION note_leaving() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.leavings VALUES (OLD.response_id); RETURN OLD; END $$});
	$look->query('CREATE TRIGGER note_leaving BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION note_leaving()');
	changed('a trigger');

	# a deferred row has not left
	anew();
	$look->query('TRUNCATE leavings');
	lookups("timeout => '200 ms'");
	does('sleep', '3, 7', 20000);
	put_all(1, 200);
	is($look->query(run(workers => 2)), 'succeeded|300|280|0|20', 'a trigger: the deferred stay');
	is($look->query('SELECT count(*), count(DISTINCT response_id) FROM leavings'), '280|280', 'a trigger: it fires for what leaves, once');
	deferred_ok('a trigger', 20);
	all_well('a trigger');
	does(undef, 'ALL');
	is($look->query(run(workers => 2)), 'succeeded|20|20|0|0', 'a trigger: then they leave');
	# rejected: the original is the row, with nothing beside it
	anew();
	lookups("timeout => '20 s'", 'mood02 > 1000');
	$look->query('SELECT put(1, 10)');
	is($look->query(run(workers => 1)), 'succeeded|10|0|10|0', 'a trigger: rejected');
	is($look->query(q{SELECT DISTINCT string_agg(k, ' ' ORDER BY k) FROM epro_etl.quarantine q, jsonb_object_keys(original) k GROUP BY quarantine_id}),
		'authored form payload response_id study subject visit', 'a trigger: the original is the row, no more');
	# a trigger that says no: the row stays
	anew();
	lookups("timeout => '20 s'");
	$look->query(q{CREATE OR REPLACE FUNCTION note_leaving() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN OLD.response_id % 10 > 0 THEN OLD END; END $$});
	$look->query('SELECT put(1, 40)');
	is($look->query(run(workers => 1)), 'succeeded|36|36|0|0', 'a trigger that says no: the others are loaded');
	is(left(), 4, 'a trigger that says no: the rows stay');
	all_well('a trigger that says no');
	$look->query('SET client_min_messages = warning; DROP FUNCTION note_leaving CASCADE; DROP TABLE leavings; RESET client_min_messages');

	# row security: whom it holds for sees, or may delete, only some
	$look->query(q{CREATE ROLE guarded LOGIN; GRANT USAGE ON SCHEMA epro_etl, public TO guarded; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO guarded;
		GRANT SELECT ON ALL TABLES IN SCHEMA epro_etl TO guarded; GRANT ALL ON staging, mood_sink, ae_sink TO guarded; GRANT SELECT ON registry, site TO guarded;
		CREATE USER MAPPING FOR guarded SERVER registry OPTIONS (user 'postgres', password_required 'false');
		ALTER TABLE staging ENABLE ROW LEVEL SECURITY;
		CREATE POLICY sees ON staging FOR SELECT TO guarded USING (response_id % 10 <> 1);
		CREATE POLICY locks ON staging FOR UPDATE TO guarded USING (true);
		CREATE POLICY takes ON staging FOR DELETE TO guarded USING (response_id % 10 <> 2)});
	anew();
	lookups("timeout => '200 ms'");
	does('sleep', '3, 7', 20000);
	$look->query('SELECT put(1, 200)');
	my $guarded = EproTest::Psql->new($node, user => 'guarded');
	is($guarded->query(run(workers => 2)), 'succeeded|160|140|0|20', 'row security: what it lets through');
	is($look->query('SELECT count(*) FILTER (WHERE response_id % 10 = 1), count(*) FILTER (WHERE response_id % 10 = 2), count(*) FROM staging'), '20|20|60', 'row security: the others stay');
	all_well('row security');
	does(undef, 'ALL');
	is($guarded->query(run(workers => 2)), 'succeeded|20|20|0|0', 'row security: then the deferred are loaded');
	all_well('row security, again');
	$guarded->close;
	$look->query('ALTER TABLE staging DISABLE ROW LEVEL SECURITY; DROP POLICY sees ON staging; DROP POLICY locks ON staging; DROP POLICY takes ON staging');
	return;
}

# Payloads that are stored beside their rows, in a table that was altered: they are
# read before the row is taken, and after, on either road.
sub large
{
	$look->query('ALTER TABLE staging ADD junk text DEFAULT 1, ADD twice bigint GENERATED ALWAYS AS (response_id * 2) STORED; ALTER TABLE staging DROP COLUMN junk');
	foreach my $trigger (0, 1)
	{
		my $name = $trigger ? 'large, by SQL' : 'large';

		$look->query(q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
			CREATE TRIGGER nothing BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION nothing()}) if $trigger;
		anew();
		lookups("timeout => '150 ms'");
		does('sleep', '3, 7', 20000);
		$look->query('ALTER TABLE staging DISABLE TRIGGER USER') if $trigger;
		$look->query(q{SELECT put(1, 40)});
		$look->query(q{UPDATE staging SET payload = jsonb_set(payload, '{note}', to_jsonb((SELECT string_agg(md5(i || '-' || response_id), '') FROM generate_series(1, 3000) i)));
			UPDATE put_in p SET payload = s.payload FROM staging s WHERE s.response_id = p.response_id;
			UPDATE staging SET payload = jsonb_set(payload, '{mood01}', '9') WHERE response_id = 10});
		$look->query('ALTER TABLE staging ENABLE TRIGGER USER') if $trigger;
		is($look->query(run(workers => 1)), 'succeeded|40|35|1|4', "$name: what becomes of the responses");
		is($look->query(q{SELECT string_agg(key || ' ' || length(value), ', ' ORDER BY key) FROM epro_etl.quarantine, jsonb_each_text(original) WHERE key IN ('response_id', 'twice', 'junk', 'study')}),
			'response_id 2, study 4, twice 2', "$name: the original, as it was");
		is($look->query(q{SELECT length(original->'payload'->>'note') FROM epro_etl.quarantine}), 96000, "$name: the original is whole");
		does(undef, 'ALL');
		is($look->query(run(workers => 0)), 'succeeded|4|4|0|0', "$name: the deferred are loaded");
		answers_ok($look, $name);
		all_well($name);
	}
	$look->query('SET client_min_messages = warning; DROP FUNCTION nothing CASCADE; ALTER TABLE staging DROP COLUMN twice; RESET client_min_messages');
	return;
}

# Asks, and moves nothing.
sub dry
{
	anew();
	lookups("timeout => '200 ms'");
	does('sleep', '3, 7', 20000);
	put_all(1, 200);
	foreach my $workers (2, 0)
	{
		is($look->query(run(workers => $workers, dry_run => 'true')), 'succeeded|300|280|0|20', "dry run, $workers workers: it tells what would be");
		is(left(), 300, "dry run, $workers workers: nothing has moved");
	}
	all_well('dry run');
	return;
}

# Under one snapshot for the whole of the caller's transaction.
sub snapshot
{
	my $name = 'repeatable read';
	my $caller = reach($node);

	anew();
	lookups("timeout => '20 s'", 'public.hold(mood02)');
	$look->query('SELECT put(1, 40)');
	$caller->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM staging');
	$look->query(q{DELETE FROM staging WHERE response_id = 3; DELETE FROM put_in WHERE response_id = 3});
	$look->query('SELECT pg_advisory_lock(82, 5)');
	$caller->send(run(workers => 0));
	ok(await_hold(), "$name: it asks");
	$look->query(q{UPDATE staging SET visit = 'V9' WHERE response_id = 12; DELETE FROM staging WHERE response_id = 14; DELETE FROM put_in WHERE response_id = 14});
	$look->query('SELECT pg_advisory_unlock_all()');
	my ($out, $error) = $caller->wait;
	is($error, '', "$name: no error");
	is($out, 'succeeded|37|37|0|0', "$name: what is still there is loaded");
	$caller->query('COMMIT');
	is($look->query('SELECT string_agg(response_id::text, $$ $$) FROM staging'), '12', "$name: what was changed is left");
	all_well($name);
	is($caller->query(run(workers => 0)), 'succeeded|1|1|0|0', "$name: and loaded by the next");

	# deferred, with the registry asked from that transaction
	anew();
	lookups("timeout => '200 ms'");
	does('sleep', '3, 7', 20000);
	put_all(1, 100);
	$caller->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
	is($caller->query(run(workers => 0)), 'succeeded|150|140|0|10', "$name: deferred");
	does(undef, 'ALL');
	$caller->query('COMMIT');
	deferred_ok($name, 10);
	all_well("$name, deferred");
	# what the transaction itself has staged, and rolled back
	$caller->query('BEGIN; SELECT put(1001, 1040)');
	is($caller->query(run(workers => 0)), 'succeeded|50|50|0|0', "$name: with what it has staged");
	$caller->query('ROLLBACK');
	is(left(), 10, "$name: rolled back, as it was");
	all_well("$name, rolled back");
	$caller->close;
	return;
}

# Rejected by a lookup, and put back when the registry knows better.
sub requeued
{
	my $name = 'requeued';

	anew();
	lookups("timeout => '20 s'");
	$there->query('UPDATE person SET enrolled = false WHERE id = 4');
	$look->query('SELECT put(1, 40)');
	is($look->query(run(workers => 2)), 'succeeded|40|38|2|0', "$name: rejected");
	all_well($name);
	is($look->query(q{SELECT epro_etl.requeue('mood', rule => 'enrolled')}), 2, "$name: put back");
	# still not: their tries are counted
	is($look->query(run(workers => 1)), 'succeeded|2|0|2|0', "$name: rejected again");
	is($look->query('SELECT count(*), min(tries), max(tries) FROM epro_etl.quarantine'), '2|2|2', "$name: the second try");
	$look->query(q{SELECT epro_etl.requeue('mood', rule => 'enrolled')});
	# deferred meanwhile: the tries wait with it
	does('sleep', '4', 20000);
	lookups("timeout => '100 ms'");
	is($look->query(run(workers => 1)), 'succeeded|2|0|0|2', "$name: deferred");
	is($look->query('SELECT count(*), min(tries) FROM epro_etl.requeued'), '2|2', "$name: deferred, the tries are kept");
	does(undef, 'ALL');
	$there->query('UPDATE person SET enrolled = true');
	lookups("timeout => '20 s'");
	is($look->query(run(workers => 2)), 'succeeded|2|2|0|0', "$name: enrolled now, loaded");
	is($look->query('SELECT (SELECT count(*) FROM epro_etl.requeued), (SELECT count(*) FROM epro_etl.quarantine), (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink)'),
		'0|0|0|40', "$name: in one place, once");
	return;
}

# A row may not leave a published source that says nothing of which it was.
sub published
{
	my $name = 'published without identity';

	anew();
	lookups("timeout => '20 s'");
	$look->query('SELECT put(1, 10)');
	$look->query('ALTER TABLE staging REPLICA IDENTITY NOTHING; SET client_min_messages = error; CREATE PUBLICATION p FOR TABLE staging; RESET client_min_messages');
	foreach my $workers (1, 0)
	{
		my ($out, $error) = $look->try(run(workers => $workers));
		is(sqlstate($error), '55000', "$name, $workers workers: refused");
	}
	is(left(), 10, "$name: nothing has moved");
	$look->query('DROP PUBLICATION p; ALTER TABLE staging REPLICA IDENTITY DEFAULT');
	return;
}

# ---- no patient data ----

# In every answer, subject and key stands a marker. It is in no log of either
# server, in no finding and in no error, whatever the question came to.
sub planted
{
	my $name = 'planted';
	my $here_offset = -s $node->logfile;
	my $there_offset = -s $registry->logfile;
	my $by_note = q{(SELECT r.enrolled FROM public.registry r WHERE r.code = response.note)};
	my $errors = '';

	$there->query(qq{UPDATE person SET code = '$marker note ' || id});
	foreach my $way (
		[ 'sleep', 150 ],
		[ 'raise', 0 ],
		[ 'locked', 0 ],
		[ 'killed', 0 ],
		[ 'denied', 0 ])
	{
		my ($does, $ms) = @$way;

		foreach my $workers (1, 0)
		{
			my $caller = reach($node);

			anew();
			lookups("timeout => '100 ms'", $by_note);
			$look->query('SELECT put(1, 10)');
			does($does, 'ALL', $ms) if $does =~ /sleep|raise/;
			my $locker = reach($registry);
			$locker->query('BEGIN; LOCK TABLE person IN ACCESS EXCLUSIVE MODE') if $does eq 'locked';
			if ($does eq 'killed')
			{
				lookups("timeout => '20 s'", $by_note);
				ask_and_wait($caller, 7, workers => $workers);
				$there->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'});
				$there->query('SELECT pg_advisory_unlock_all()');
			}
			else
			{
				$there->query('ALTER VIEW registry RENAME TO gone') if $does eq 'denied';
				$caller->send(run(workers => $workers));
			}
			my ($out, $error) = $caller->wait;
			$errors .= $error;
			isnt("$out$error", '', "$name, $does, $workers workers: it ends: " . ($out || sqlstate($error)));
			$locker->query('ROLLBACK') if $does eq 'locked';
			$locker->close;
			$there->query('ALTER VIEW gone RENAME TO registry') if $does eq 'denied';
			is($look->query(qq{SELECT count(*) FROM epro_etl.finding f WHERE f::text LIKE '%$marker%'}), 0, "$name, $does, $workers workers: not in the findings");
			is($look->query(qq{SELECT count(*) FROM epro_etl.run_ledger f WHERE f::text LIKE '%$marker%'}), 0, "$name, $does, $workers workers: not in the ledger");
			$caller->close;
		}
	}
	unlike($errors, qr/$marker/, "$name: not in an error");
	is(marked($node, $here_offset), '', "$name: not in the log here");
	is(marked($registry, $there_offset), '', "$name: not in the log there");

	# the subject is asked about by its pseudonym, which a server that logs what it is sent shows
	anew();
	lookups("timeout => '20 s'", q{NOT EXISTS (SELECT FROM public.registry r WHERE r.code = subject)});
	$look->query('SELECT put(1, 10)');
	$there->query(q{ALTER ROLE postgres SET log_min_duration_statement = 0});
	$there_offset = -s $registry->logfile;
	is($look->query(run(workers => 1)), 'succeeded|10|10|0|0', "$name: subjects are asked about");
	$there->query(q{ALTER ROLE postgres RESET log_min_duration_statement});
	my $key = $look->query('SELECT min(subject_key) FROM mood_sink');
	like(log_since($registry, $there_offset), qr/\Q$key\E/, "$name: by their pseudonyms");
	is(marked($registry, $there_offset), '', "$name: and by nothing else");
	$there->query(q{UPDATE person SET code = 'code ' || id});
	return;
}

# The first line of a server's log that has the marker.
sub marked
{
	my ($server, $offset) = @_;
	return log_since($server, $offset) =~ /^(.*$marker.*)$/m ? $1 : '';
}

# ---- memory ----

# As many subjects as there may be: a process keeps a bounded number of answers.
sub flat
{
	my $name = 'many subjects';
	my $most = 0;

	anew();
	lookups("timeout => '20 s'", q{NOT EXISTS (SELECT FROM public.known k WHERE k.id::text = subject || response.note)});
	$look->query(qq{INSERT INTO staging SELECT g, 'ST01', 'MOOD', 'subject ' || g, 'V1', now(), jsonb_build_object('mood01', 1, 'mood02', 1, 'note', repeat('x', 500) || g) FROM generate_series(1, 30000) g});
	$look->query('SET epro_etl.batch_size = 1000');
	close_gate($look, 10000);
	close_gate($look, 30000);
	my $caller = EproTest::Psql->new($node, options => { 'epro_etl.batch_size' => 1000 });
	$caller->send(run(workers => 1));
	foreach my $id (10000, 30000)
	{
		ok(await_gate($look), "$name: it stands at $id");
		my $pid = $look->query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'epro_etl worker'});
		my $offset = -s $node->logfile;
		$look->query("SELECT pg_log_backend_memory_contexts($pid)");
		# it is logged at the next chance to be interrupted
		gate_open_for($look, $id);
		my $end = time() + $EproTest::PATIENCE;
		sleep(0.02) until log_since($node, $offset) =~ /Grand total/ || time() > $end;
		my $log = log_since($node, $offset);
		my ($lookups) = $log =~ /level: \d+; epro_etl lookups: (\d+) total/;
		my ($total) = $log =~ /Grand total: (\d+) bytes/;
		ok(defined $lookups && $lookups < 20 * 1024 * 1024, "$name: answers take " . ($lookups || 'unknown'));
		cmp_ok($total, '<', 64 * 1024 * 1024, "$name: all of it takes $total");
	}
	my ($out) = $caller->wait;
	is($out, 'succeeded|30000|30000|0|0', "$name: all are loaded");
	$caller->close;
	return;
}

# ---- what the parts share ----

# A server to be asked, started.
sub other_server
{
	my ($name, $sql) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);

	$server->init(extra => [ '-E', 'UTF8', '--locale', 'C' ]);
	$server->append_conf('postgresql.conf', "max_connections = 40\nlog_statement = 'none'\ntimezone = 'UTC'\nautovacuum = off\n");
	$server->start;
	$server->safe_psql('postgres', $sql);
	return $server;
}

sub link_server
{
	my ($name, $server, $table, $columns) = @_;
	my ($host, $port) = ($server->host, $server->port);

	$node->safe_psql('postgres', <<"SQL");
CREATE SERVER $name FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres', connect_timeout '5');
CREATE USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS (user 'postgres');
CREATE FOREIGN TABLE $table ($columns) SERVER $name OPTIONS (table_name '$table');
SQL
	return;
}

# Everything as it was before the first run, on all servers.
sub anew
{
	$look->query('SELECT pg_advisory_unlock_all(); TRUNCATE staging, put_in, gate, mood_sink, ae_sink, epro_etl.quarantine, epro_etl.finding,'
		  . ' epro_etl.run_worker, epro_etl.run_ledger, epro_etl.requeued');
	$there->query('SELECT pg_advisory_unlock_all()');
	does(undef, 'ALL');
	return;
}

# The lookups of both forms: persons as asked for, and sites with time enough.
sub lookups
{
	my ($arguments, $query) = @_;

	$query = $enrolled unless defined $query;
	$look->query("SELECT epro_etl.add_lookup('MOOD', 'enrolled', \$q\$$query\$q\$, $arguments)");
	$look->query(q{SELECT epro_etl.add_lookup('AE', 'site_is_open', 'EXISTS (SELECT FROM public.site s WHERE s.id = site)', timeout => '20 s')
		WHERE NOT EXISTS (SELECT FROM epro_etl.edit_check WHERE check_name = 'site_is_open' AND removed_at IS NULL)});
	return;
}

# So many responses that ask about persons, and half as many that ask about sites.
sub put_all
{
	my ($first, $last) = @_;
	my $more = 10000 + $first;

	# 400 and 100: the other form is a quarter of a large flow
	my $n = $last - $first + 1;
	my $others = $n == 400 ? 100 : $n / 2;
	$look->query("SELECT put($first, $last), put($more, $more + $others - 1, 'AE')");
	return;
}

# What the registry does with questions about these persons, from now on.
sub does
{
	my ($what, $who, $ms) = @_;

	$what = defined $what ? "'$what'" : 'NULL';
	$ms ||= 0;
	$there->query("UPDATE person SET does = $what, ms = $ms" . ($who eq 'ALL' ? '' : " WHERE id IN ($who)"));
	return;
}

sub run
{
	my (%arguments) = @_;
	my $within = delete $arguments{within};
	my $list = join '', map { ", $_ => $arguments{$_}" } sort keys %arguments;

	my $query = "SELECT status, claimed, loaded, rejected, deferred FROM epro_etl.run('mood'$list)";

	return $within ? "SELECT * FROM epro_etl.with_timeout('$within', \$r\$$query\$r\$) AS r (status text, claimed bigint, loaded bigint, rejected bigint, deferred bigint)" : $query;
}

sub loaded_of { return (split /\|/, $_[0])[2]; }

sub left { return $look->query('SELECT count(*) FROM staging'); }

sub unanswered { return q{kind = 'unanswered'}; }

sub questions { return $there->query('SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM questions'); }

# Queries that others have running on the registry, at this moment.
sub asking
{
	return $there->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()});
}

# Starts a run that is stuck in a question about a person, as the test wants it.
sub ask_and_wait
{
	my ($caller, $person, %arguments) = @_;

	stuck($person, sub { $caller->send(run(%arguments)) });
	return;
}

# Does something that makes a question, and waits until it is stuck in one about a
# person.
sub stuck
{
	my ($person, $what) = @_;

	$there->query("SELECT pg_advisory_lock(81, $person)");
	does('wait', $person);
	$what->();
	until_true($there, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'}, 1)
	  or fail('a question is on its way');
	return;
}

# Waits until so many responses of each form are in their sinks.
sub arrived
{
	my ($moods, $others) = @_;
	return until_true($look, 'SELECT (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM ae_sink)', "$moods|$others");
}

sub await_hold
{
	return until_true($look, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 82 AND NOT granted}, 1);
}

sub stop_registry
{
	# what it holds is held until then
	$registry->stop('immediate');
	$there->close;
	return;
}

sub start_registry
{
	$registry->start;
	$there = reach($registry);
	does(undef, 'ALL');
	return;
}

# So many are deferred: they are in the source, and have a finding that says so.
sub deferred_ok
{
	my ($name, $n) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($look->query('SELECT (SELECT count(*) FROM staging), (SELECT deferred FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1)'), "$n|$n", "$name: the deferred are in the source");
	return is($look->query(q{SELECT coalesce(s.response_id::text, f.source_id) FROM staging s
			FULL JOIN (SELECT source_id FROM epro_etl.finding WHERE run_id = (SELECT max(run_id) FROM epro_etl.run_ledger) AND kind = 'unanswered' AND severity = 'information') f
			ON f.source_id = s.response_id::text WHERE s.response_id IS NULL OR f.source_id IS NULL LIMIT 5}),
		'', "$name: each with a finding");
}

sub oracle
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return oracle_ok($look, $name, sinks => [ 'mood_sink', 'ae_sink' ]);
}

sub all_well
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	oracle($name);
	return is($look->query(q{SELECT h.run_id, r.measure, r.ledger, r.relations FROM epro_etl.run_history h, LATERAL epro_etl.reconcile(h.run_id) r WHERE r.agrees IS NOT TRUE LIMIT 5}),
		'', "$name: reconciled");
}
