# The mix: four sessions stage, change and take back responses while a stream
# with cut stages loads them into a wide table, a long one in partitions and a
# table of another server; meanwhile its processes are killed, terminated and
# canceled, both servers are stopped, killed and started, the configuration
# changes and the source is written anew. At the end all is in its place, once.
#
# The seed says what is done in which order, and is printed: with EPRO_MIX_SEED
# set to it the same is done again. EPRO_MIX_ROWS and EPRO_MIX_MINUTES make it
# long; test/chaos/mix.sh is the long form.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use RemoteTest;
use Test::More;
use Time::HiRes qw(sleep time);

use constant WRITERS => 4;

my $rows = $ENV{EPRO_MIX_ROWS} || 20000;
my $minutes = $ENV{EPRO_MIX_MINUTES} || 0.6;
my $seed = $ENV{EPRO_MIX_SEED} || ($$ * 7919 + int(time())) % 1000000;
my $required = $ENV{EPRO_MIX_REQUIRED} // 1;
srand $seed;
diag("seed $seed: EPRO_MIX_SEED=$seed EPRO_MIX_ROWS=$rows EPRO_MIX_MINUTES=$minutes EPRO_MIX_REQUIRED=$required");

# what comes back has a while to do so
$EproTest::PATIENCE = 180 if $EproTest::PATIENCE < 180;

my $far = create_far('mix_far');
my $node = create_node('mix', conf => <<'CONF');
shared_preload_libraries = 'epro_etl'
max_worker_processes = 24
fsync = off
epro_etl.naptime = '200ms'
epro_etl.sink_timeout = '3s'
CONF
create_flow($node, $far);
my $look = reach($node);
link_far($look, "on_duplicate => 'ignore', required => " . ($required ? 'true' : 'false'));
# what the other server alone refuses
$far->safe_psql('postgres', 'ALTER TABLE mood_far ADD CONSTRAINT not_ten CHECK (score <> 10 OR source_id % 100 <> 2)');
$look->query(<<'SQL');
CREATE TABLE writer (id int PRIMARY KEY, next bigint NOT NULL);
-- Goes on where the writer with this number was, in small transactions.
CREATE PROCEDURE write_on(me int, n bigint, pause float8) LANGUAGE plpgsql AS $$
DECLARE
    base bigint := me * 10000000;
    at bigint;
    count int;
    ids bigint[];
BEGIN
    LOOP
        SELECT next INTO at FROM writer WHERE id = me;
        EXIT WHEN at >= n;
        count := least(1 + floor(random() * 20), n - at);
        PERFORM put(base + at, base + at + count - 1, CASE WHEN random() < 0.02 THEN '{"severity": 9}' ELSE '{}' END::jsonb);
        UPDATE writer SET next = at + count WHERE id = me;
        COMMIT;
        -- what is still staged of it by now is changed, or taken back
        IF random() < 0.1 THEN
            ids := ARRAY(SELECT base + floor(random() * at)::bigint FROM generate_series(1, 2) UNION SELECT base + at);
            IF random() < 0.5 THEN
                WITH c AS (UPDATE staging SET payload = payload || '{"note": "a second note"}'
                           WHERE response_id = ANY (ids) RETURNING response_id, payload),
                     p AS (UPDATE put_in SET payload = c.payload FROM c WHERE put_in.response_id = c.response_id)
                INSERT INTO changed SELECT response_id FROM c;
            ELSE
                WITH c AS (DELETE FROM staging WHERE response_id = ANY (ids) RETURNING response_id),
                     p AS (DELETE FROM put_in USING c WHERE put_in.response_id = c.response_id)
                INSERT INTO changed SELECT response_id FROM c;
            END IF;
            COMMIT;
        END IF;
        PERFORM pg_sleep(pause * 2 * random());
    END LOOP;
END $$;
SQL
$look->query('INSERT INTO writer SELECT g, 0 FROM generate_series(1, ' . WRITERS . ') g');

my $each = int($rows / WRITERS);
my $pause = $minutes * 60 / ($each / 10.5) * 0.8;
my @writers = map { start_writer($_) } 1 .. WRITERS;
my %done;
my $form_version = 1;
my $far_is_up = 1;

ok($look->query(q{SELECT epro_etl.start_stream('flow', '{"deidentify": 2, "validate": 2, "store": 2}') IS NOT NULL}), 'the stream starts');

# How often each is drawn.
my @deeds = (
	kill_process => 4, terminate => 4, cancel => 4, restart_at_once => 2, restart => 1,
	far_stops => 3, far_backend_killed => 2, far_killed => 1, far_cuts => 3,
	new_check => 2, new_form => 2, rewrite => 2, lock_some => 2);
my @drawn;
while (my ($deed, $times) = splice @deeds, 0, 2)
{
	push @drawn, ($deed) x $times;
}

my $end = time() + $minutes * 60;
while (time() < $end)
{
	my $deed = $drawn[ int(rand(@drawn)) ];
	my $chance = rand();
	my $wait = ($minutes > 2 ? 4 : 1.5) * (0.2 + rand());

	note(sprintf '%.1f s left: %s', $end - time(), $deed);
	no strict 'refs';
	eval { &{"main::$deed"}($chance); 1 } or note("it met: $@");
	$done{$deed}++;
	go_on_writing();
	sleep($wait);
}

# All is well again; what is left arrives.
$far->start unless $far_is_up;
$node->stop('immediate');
$node->start;
$look = reach($node);
# the writers may be behind, the more the longer it took
$end = time() + $EproTest::PATIENCE + $minutes * 20;
while (time() < $end)
{
	go_on_writing();
	last if $look->query("SELECT bool_and(next >= $each) FROM writer") eq 't';
	sleep(0.2);
}
is($look->query("SELECT bool_and(next >= $each) FROM writer"), 't', 'all was written');
ok(settled($look), 'all has left staging and outbox')
  or diag(flow_shows($look, 'state, held, in_flight, failures, sqlstate, message'));
my $last = $look->query(q{SELECT concat_ws('|', state, generations, failures, held) FROM epro_etl.stat_stream});
end_stream($look, 'at the end');

sinks_ok($look, "seed $seed");
is($look->query(q{SELECT h.run_id, r.measure, r.ledger, r.relations FROM epro_etl.run_history h, LATERAL epro_etl.reconcile(h.run_id) r WHERE r.agrees IS FALSE LIMIT 5}),
	'', 'every generation is reconciled');
is($look->query(q{SELECT count(*) FROM epro_etl.run_history WHERE status = 'running' OR claimed <> loaded + rejected + duplicate + deferred}), 0, 'no generation goes on, each has its sum');
is($look->query(q{SELECT (SELECT sum(loaded + rejected + duplicate) FROM epro_etl.run_history) = (SELECT count(*) FROM put_in)}), 't', 'the ledger has as many as were put in');
is($look->query(q{SELECT count(*) FROM epro_etl.run_history WHERE sqlstate = 'XX000'}), 0, 'no generation ended with an internal error');
diag('done: ' . join ', ', map { "$_ $done{$_}" } sort keys %done);
diag('put in, wide, long, there, quarantine, outbox, changed: ' . $look->query(q{SELECT concat_ws(', ', (SELECT count(*) FROM put_in), (SELECT count(*) FROM mood_wide),
	(SELECT count(*) FROM mood_long), (SELECT count(*) FROM mood_far), (SELECT count(*) FROM epro_etl.quarantine), (SELECT count(*) FROM epro_etl.outbox), (SELECT count(*) FROM changed))}));
diag('generations: ' . $look->query(q{SELECT string_agg(n || ' ' || s, ', ' ORDER BY s) FROM (SELECT concat_ws(' ', status, sqlstate) AS s, count(*) AS n FROM epro_etl.run_history GROUP BY 1) x}));
diag("at the end: $last");

$look->close;
$_->close foreach @writers;
$node->stop('fast');
$far->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal (?!9)/, 'no process crashed by itself');
done_testing();

sub start_writer
{
	my ($n) = @_;
	my $writer = eval { EproTest::Psql->new($node) } or return undef;

	eval { $writer->query('SELECT setseed(' . (($seed * $n) % 1000) / 1000 . ')'); $writer->send("CALL write_on($n, $each, $pause)"); 1 } or return undef;
	return $writer;
}

# Writers that a crash or restart has ended begin again where they were.
sub go_on_writing
{
	foreach my $n (1 .. WRITERS)
	{
		my $writer = $writers[ $n - 1 ];

		next if $writer && $writer->busy;
		$writer->close if $writer;
		$writers[ $n - 1 ] = start_writer($n);
	}
	return;
}

# A question to a server that may not answer.
sub ask
{
	my ($sql) = @_;

	my ($out, $error) = $look->try($sql);
	if ($look->{over})
	{
		$look->close;
		$look = reach($node);
		($out, $error) = $look->try($sql);
	}
	return $out;
}

sub some_process
{
	my ($chance) = @_;
	my @pids = split /\n/, ask(q{SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type IN ('epro_etl stream', 'epro_etl stage worker') ORDER BY pid});

	return @pids ? $pids[ int($chance * @pids) ] : undef;
}

sub kill_process
{
	my $pid = some_process(@_) or return;

	kill 9, $pid;
	return;
}

sub terminate
{
	my $pid = some_process(@_) or return;

	ask("SELECT pg_terminate_backend($pid)");
	return;
}

sub cancel
{
	my $pid = some_process(@_) or return;

	ask("SELECT pg_cancel_backend($pid)");
	return;
}

sub restart_at_once
{
	$node->stop('immediate');
	$node->start;
	return;
}

sub restart
{
	$node->stop('fast');
	$node->start;
	return;
}

# Down now, and up at the next turn of it.
sub far_stops
{
	my ($chance) = @_;

	if ($far_is_up)
	{
		$far->stop($chance < 0.5 ? 'fast' : 'immediate');
		$far_is_up = 0;
	}
	sleep($chance * ($minutes > 2 ? 8 : 2));
	return far_comes();
}

sub far_comes
{
	$far->start;
	$far_is_up = 1;
	return;
}

# Its postmaster, at once. The others of its processes notice, and must have
# ended before it can start again.
sub far_killed
{
	my $session = reach($far);
	my $postmaster = (split /\n/, PostgreSQL::Test::Utils::slurp_file($far->data_dir . '/postmaster.pid'))[0];

	kill 'STOP', $postmaster;
	my @pids = split /\n/, $session->query('SELECT pid FROM pg_stat_activity');
	$far->kill9;
	$far_is_up = 0;
	$session->close;
	foreach my $pid (@pids)
	{
		sleep(0.05) while kill 0, $pid;
	}
	return far_comes();
}

sub far_backends
{
	my ($sql) = @_;
	my ($out) = eval { $far->safe_psql('postgres', $sql) };

	return split /\n/, $out // '';
}

sub far_backend_killed
{
	my ($pid) = far_backends(q{SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%epro_etl%' OR application_name = 'postgres_fdw' ORDER BY state <> 'active', pid LIMIT 1});

	kill 9, $pid if $pid;
	return;
}

sub far_cuts
{
	far_backends(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
	return;
}

sub new_check
{
	my ($chance) = @_;

	ask(q{SELECT epro_etl.remove_edit_check('MOOD', 'high') FROM epro_etl.edit_check WHERE check_name = 'high' AND removed_at IS NULL});
	ask(q{SELECT epro_etl.add_edit_check('MOOD', 'high', 'score < } . (5 + int($chance * 5)) . q{', severity => 'warning')});
	return;
}

sub new_form
{
	$form_version++;
	ask(qq{SELECT epro_etl.register_form('MOOD', '{"type": "object", "properties": {
		"site": {"type": "string"}, "severity": {"type": "integer", "minimum": 0, "maximum": 3},
		"score": {"type": "integer"}, "note": {"type": "string"}, "of_version_$form_version": {"type": "string"}}}', '$seed.$form_version')});
	return;
}

sub rewrite
{
	my ($chance) = @_;

	ask($chance < 0.7 ? 'VACUUM FULL staging' : 'CLUSTER staging USING staging_pkey');
	return;
}

sub lock_some
{
	my ($chance) = @_;

	ask($chance < 0.5
		? 'BEGIN; SELECT count(*) FROM (SELECT FROM staging TABLESAMPLE BERNOULLI (5) FOR UPDATE SKIP LOCKED) x; SELECT pg_sleep(0.5); COMMIT'
		: 'BEGIN; DELETE FROM staging WHERE response_id IN (SELECT response_id FROM staging LIMIT 20 FOR UPDATE SKIP LOCKED); SELECT pg_sleep(0.5); ROLLBACK');
	return;
}
