# The mix of batches: sessions stage, change and take back responses, and put
# rejected ones back, while two others run the pipeline again and again, in their
# own session or with up to four workers, under short timeouts, too few slots and
# locks of others.  Meanwhile processes are killed, terminated and canceled, the
# server is restarted, tables and forms change, the source is written anew, and
# the disk of a sink is full for a while.  After every step, the oracle and the
# reconciliation look at one moment of it; at the end, all is in its place.
#
# The seed says what is done in which order, and is printed: with EPRO_MIX_SEED
# set to it, the same is done again.  EPRO_MIX_MINUTES makes it long;
# test/chaos/mix.sh is the long form.
use strict;
use warnings FATAL => 'all';

# Begins once more in a place with a small disk, which only this program and the
# servers that it starts see: a file system that a user makes for himself, where
# the system allows for it.  That is before anything is written by this one.
BEGIN
{
	my $root = ($ENV{TESTDATADIR} // '.') . '/batchmix_disk';

	if ($ENV{TESTDATADIR} && !defined $ENV{EPRO_MIX_DISK})
	{
		mkdir $root;
		local $ENV{PERL5LIB} = join ':', @INC;
		local $ENV{EPRO_MIX_DISK} = '';
		exec 'unshare', '-Urm', 'sh', '-c',
		  'mount -t tmpfs -o size=32m tmpfs "$1" && mkdir "$1/small" && EPRO_MIX_DISK="$1/small" && shift && exec unshare -U --map-user="$1" --map-group="$2" "$3" "$4"',
		  'sh', $root, $>, (split / /, $))[0], $^X, $0
		  if system("unshare -Urm mount -t tmpfs -o size=1m tmpfs '$root' 2>/dev/null") == 0;
	}
}

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use PostgreSQL::Test::Utils;
use RemoteTest;
use Test::More;
use Time::HiRes qw(sleep time);

use constant { WRITERS => 2, CALLERS => 2 };

my $minutes = $ENV{EPRO_MIX_MINUTES} || 0.5;
my $seed = $ENV{EPRO_MIX_SEED} || ($$ * 7919 + int(time())) % 1000000;
my $disk = $ENV{EPRO_MIX_DISK};
srand $seed;
diag("seed $seed: EPRO_MIX_SEED=$seed EPRO_MIX_MINUTES=$minutes");
diag('the disk is never full: this user may not make a file system') unless $disk;
$EproTest::PATIENCE = 180 if $EproTest::PATIENCE < 180;

my $node = create_node('batchmix', conf => <<'CONF');
shared_preload_libraries = 'epro_etl'
max_worker_processes = 7
fsync = off
CONF
create_fixture($node, gates => 0);
my $look = reach($node);
$look->query(<<'SQL');
ALTER TABLE staging SET (fillfactor = 30);
ALTER TABLE mood_sink ADD UNIQUE (note), ADD CHECK (mood01 <> 1 OR mood02 <> 2);
CREATE TABLE mood_latest (subject_key text, visit text, authored timestamptz, mood01 int, source_id bigint, run_id bigint, UNIQUE (subject_key, visit));
SELECT epro_etl.add_sink('mood', 'MOOD', 'mood_latest', on_duplicate => 'latest');
SELECT epro_etl.add_edit_check('MOOD', 'inverse', '1 / (mood01 + mood02) >= 0');
CREATE TABLE known AS SELECT g AS id FROM generate_series(0, 3) g;
SELECT epro_etl.add_lookup('MOOD', 'known', 'EXISTS (SELECT FROM public.known k WHERE k.id = mood01)', on_timeout => 'reject', timeout => '2 s');
ALTER TABLE put_in ADD PRIMARY KEY (response_id);
CREATE TABLE writer (id int PRIMARY KEY, next bigint NOT NULL, until bigint NOT NULL);
CREATE TABLE put_back (run_id bigint, n bigint);

-- Goes on where the writer with this number was, in small transactions.
CREATE PROCEDURE write_on(me int) LANGUAGE plpgsql AS $$
DECLARE
    at bigint;
    n bigint;
    ids bigint[];
BEGIN
    LOOP
        SELECT next, least(until - next, 1 + floor(random() * 20)) INTO at, n FROM writer WHERE id = me;
        EXIT WHEN n <= 0;
        WITH made AS (
            INSERT INTO staging
            SELECT me * 10000000 + g, 'ST01', 'MOOD', 'S-' || me || '.' || (g % 17), 'V' || (g % 5), '2026-01-01 08:00+00'::timestamptz + g * interval '1 minute',
                   jsonb_build_object('mood01', CASE WHEN g % 29 = 0 THEN 9 ELSE g % 4 END, 'mood02', g % 3,
                                      'note', CASE WHEN g % 31 = 0 THEN 'a note of many' ELSE 'note of ' || me || '.' || g END)
            FROM generate_series(at, at + n - 1) g
            RETURNING response_id, payload)
        INSERT INTO put_in (response_id, payload) SELECT response_id, payload FROM made;
        UPDATE writer SET next = at + n WHERE id = me;
        COMMIT;
        -- what is still staged is changed, or taken back
        IF random() < 0.3 THEN
            ids := ARRAY(SELECT response_id FROM staging TABLESAMPLE SYSTEM (20) LIMIT 5);
            IF random() < 0.5 THEN
                WITH c AS (UPDATE staging SET payload = payload || '{"mood02": 1}' WHERE response_id = ANY (ids) RETURNING response_id, payload)
                UPDATE put_in SET payload = c.payload FROM c WHERE put_in.response_id = c.response_id;
            ELSE
                WITH c AS (DELETE FROM staging WHERE response_id = ANY (ids) RETURNING response_id)
                DELETE FROM put_in USING c WHERE put_in.response_id = c.response_id;
            END IF;
            COMMIT;
        END IF;
        PERFORM pg_sleep(0.005 * random());
    END LOOP;
END $$;

-- requeue() with a note of how many, for the oracle
CREATE FUNCTION put_some_back() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
    n bigint;
BEGIN
    SELECT q.run_id INTO run FROM epro_etl.quarantine q ORDER BY random() LIMIT 1;
    IF FOUND THEN
        n := epro_etl.requeue('mood', run);
        INSERT INTO put_back VALUES (run, n);
    END IF;
END $$;

-- Says what is wrong, a line a thing: in a transaction with one snapshot, also
-- while runs go on.
CREATE FUNCTION wrong() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
        WITH p AS (SELECT id, count(*) AS n, string_agg(place, ', ') AS at FROM (
                SELECT response_id AS id, 'staging' AS place FROM staging
                UNION ALL SELECT source_id::bigint, 'quarantine' FROM epro_etl.quarantine
                UNION ALL SELECT source_id, 'mood_sink' FROM mood_sink) x GROUP BY id)
        SELECT format('response %s is there %s times: %s (put in: %s)', coalesce(i.response_id, p.id), coalesce(p.n, 0), p.at, i.response_id IS NOT NULL)
        FROM put_in i FULL JOIN p ON p.id = i.response_id
        WHERE i.response_id IS NULL OR p.n IS DISTINCT FROM 1 LIMIT 10;
    RETURN QUERY
        SELECT format('response %s has not its own answers', s.source_id)
        FROM mood_sink s JOIN put_in i ON i.response_id = s.source_id
        WHERE (s.mood01, s.mood02) IS DISTINCT FROM ((i.payload->>'mood01')::bigint, (i.payload->>'mood02')::bigint) LIMIT 10;
    RETURN QUERY
        SELECT format('response %s is in one sink and not in the other', id)
        FROM (SELECT source_id AS id FROM mood_sink) a
        FULL JOIN (SELECT source_id AS id FROM mood_latest UNION SELECT earlier_source_id::bigint FROM epro_etl.superseded) b USING (id)
        WHERE a.id IS NULL OR b.id IS NULL LIMIT 10;
    RETURN QUERY
        SELECT format('run %s claimed %s = loaded %s + rejected %s + duplicate %s + deferred %s does not hold',
                      run_id, claimed, h.loaded, rejected, duplicate, deferred)
        FROM epro_etl.run_history h WHERE claimed <> h.loaded + rejected + duplicate + deferred LIMIT 10;
    RETURN QUERY
        SELECT format('run %s loaded %s by its ledger and %s by the sink', h.run_id, h.loaded, count(l.run_id))
        FROM epro_etl.run_history h LEFT JOIN mood_sink l USING (run_id)
        GROUP BY h.run_id, h.loaded, h.dry_run HAVING count(l.run_id) <> CASE WHEN h.dry_run THEN 0 ELSE h.loaded END LIMIT 10;
    RETURN QUERY
        SELECT format('run %s rejected %s by its ledger; %s are in quarantine, and %s were put back', h.run_id, h.rejected + h.duplicate, q.n, b.n)
        FROM epro_etl.run_history h
        LEFT JOIN (SELECT run_id, count(*) AS n FROM epro_etl.quarantine GROUP BY run_id) q USING (run_id)
        LEFT JOIN (SELECT run_id, sum(n) AS n FROM put_back GROUP BY run_id) b USING (run_id)
        WHERE coalesce(q.n, 0) + coalesce(b.n, 0) <> CASE WHEN h.dry_run THEN 0 ELSE h.rejected + h.duplicate END LIMIT 10;
    RETURN QUERY
        SELECT format('response %s of run %s is in quarantine without a reason', q.source_id, q.run_id)
        FROM epro_etl.quarantine q
        LEFT JOIN (SELECT DISTINCT run_id, coalesce(source_id, '') AS id FROM epro_etl.finding WHERE severity = 'error') f
            ON f.run_id = q.run_id AND f.id = coalesce(q.source_id, '')
        WHERE f.run_id IS NULL LIMIT 10;
    RETURN QUERY
        SELECT format('run %s: %s: the ledger says %s, the relations %s', h.run_id, r.measure, r.ledger, r.relations)
        FROM epro_etl.run_history h, LATERAL epro_etl.reconcile(h.run_id) r
        WHERE r.agrees IS FALSE AND NOT EXISTS (SELECT FROM put_back p WHERE p.run_id = h.run_id)
          AND h.run_id > (SELECT max(run_id) - 20 FROM epro_etl.run_ledger) LIMIT 10;
    RETURN QUERY
        SELECT format('run %s ended with an internal error', run_id) FROM epro_etl.run_history WHERE sqlstate = 'XX000';
END $$;
SQL
$look->query('INSERT INTO writer SELECT g, 0, 0 FROM generate_series(1, ' . WRITERS . ') g');
if ($disk)
{
	$look->query("CREATE TABLESPACE small LOCATION '$disk'");
	$look->query('ALTER TABLE mood_sink SET TABLESPACE small; ALTER TABLE mood_latest SET TABLESPACE small');
}

my (@writers, @callers, %done, %ended);
my $version = 1;
my $steps = 0;

# How often each is drawn.
my @deeds = (
	kill_process => 2, kill_caller => 1, terminate => 3, cancel => 4, restart_at_once => 1, restart => 1,
	requeue => 4, new_form => 2, new_check => 3, change_sink => 2, rename_column => 1, change_source => 1,
	vacuum => 3, rewrite => 1, lock_rows => 3, lock_table => 2, deadlock => 3, nothing => 4,
	$disk ? (fill_disk => 3) : ());
my @drawn;
while (my ($deed, $times) = splice @deeds, 0, 2)
{
	push @drawn, ($deed) x $times;
}

my $end = time() + $minutes * 60;
my $bad = '';
while (time() < $end && $bad eq '')
{
	my $deed = $drawn[ int(rand(@drawn)) ];
	my $chance = rand();
	my $wait = 0.3 * rand();
	my @calls = map { draw_call() } 1 .. CALLERS;

	$steps++;
	note(sprintf 'step %d, %.1f s left: %s', $steps, $end - time(), $deed);
	go_on_writing(200);
	go_on_calling(@calls);
	sleep($wait);
	no strict 'refs';
	eval { &{"main::$deed"}($chance); 1 } or note("it met: $@");
	$done{$deed}++;
	$bad = look();
}
is($bad, '', "seed $seed: the oracle, after each of $steps steps");

# All is well again; what is left arrives.
$_->close foreach grep { $_ } @callers, @writers;
$node->restart;
$look->close;
$look = reach($node);
# after a long time the small disk is full for good
$look->query('ALTER TABLE ALL IN TABLESPACE small SET TABLESPACE pg_default; ALTER INDEX ALL IN TABLESPACE small SET TABLESPACE pg_default') if $disk;
is($look->query(q{SELECT count(*) FROM epro_etl.run_history WHERE status = 'running'}), 0, 'no run goes on');
is($look->query(q{SELECT status FROM epro_etl.run('mood', workers => 4)}), 'succeeded', 'a last run');
is($look->query('SELECT count(*) FROM staging'), 0, 'all has left staging');
is(look(), '', "seed $seed: the oracle, at the end");
is($look->query(q{SELECT * FROM index_errors('{mood_sink,mood_latest}')}), '', 'every row is in every index');
is(survivors($look), 0, 'no worker is left');
is($look->query(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), 0, 'no lock is left');
diag('done: ' . join ', ', map { "$_ $done{$_}" } sort keys %done);
diag('put in, sink, latest, superseded, quarantine, put back: ' . $look->query(q{SELECT concat_ws(', ', (SELECT count(*) FROM put_in), (SELECT count(*) FROM mood_sink),
	(SELECT count(*) FROM mood_latest), (SELECT count(*) FROM epro_etl.superseded), (SELECT count(*) FROM epro_etl.quarantine), (SELECT sum(n) FROM put_back))}));
diag('runs: ' . $look->query(q{SELECT string_agg(n || ' ' || s, ', ' ORDER BY s) FROM (SELECT concat_ws(' ', status, sqlstate) AS s, count(*) AS n FROM epro_etl.run_history GROUP BY 1) x}));
diag('calls: ' . join ', ', map { "$ended{$_} $_" } sort keys %ended);
$look->close;
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal (?!9)/, 'no process crashed by itself');
done_testing();

# ---- who writes, who calls, who looks ----

# A question to a server that may be restarting.
sub ask
{
	my ($sql) = @_;

	foreach (1 .. 20)
	{
		my ($out, $error) = $look->try($sql);

		return $out unless $look->{over} || $error =~ /FATAL:|08006|57P0/;
		$look->close;
		$look = reach($node);
	}
	die "no answer of: $sql\n";
}

# The oracle, at one moment of whatever goes on.
sub look
{
	return ask('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM wrong(); COMMIT');
}

sub go_on_writing
{
	my ($n) = @_;

	ask("UPDATE writer SET until = next + $n WHERE next > until - $n");
	foreach my $i (0 .. WRITERS - 1)
	{
		my $writer = $writers[$i];

		next if $writer && $writer->busy;
		$writer->close if $writer;
		$writers[$i] = eval { EproTest::Psql->new($node) } or next;
		eval { $writers[$i]->send('CALL write_on(' . ($i + 1) . ')') };
	}
	return;
}

# Of a run: with how many workers, and under which times.
sub draw_call
{
	my $workers = (0, 1, 2, 4)[ int(rand(4)) ];
	my $size = (5, 20, 100)[ int(rand(3)) ];
	my $dry = rand() < 0.1 ? ', dry_run => true' : '';
	my $timeout = rand() < 0.2 ? sprintf ", timeout => '%d ms'", 5 + rand(100) : '';
	my $statement = rand() < 0.15 ? 5 + int(rand(100)) : 0;
	my $lock = rand() < 0.3 ? 5 + int(rand(50)) : 0;

	return "SET epro_etl.batch_size = $size; SET statement_timeout = $statement; SET lock_timeout = $lock;"
	  . " SELECT status FROM epro_etl.run('mood', workers => $workers$dry$timeout)";
}

sub go_on_calling
{
	my (@calls) = @_;

	foreach my $i (0 .. CALLERS - 1)
	{
		my $caller = $callers[$i];

		next if $caller && $caller->busy;
		note_end($caller) if $caller;
		if (!$caller || $caller->{over})
		{
			$callers[$i] = eval { EproTest::Psql->new($node) } or next;
		}
		eval { $callers[$i]->send($calls[$i]) };
	}
	return;
}

sub note_end
{
	my ($caller) = @_;

	return unless $caller->{n} > 1;
	if ($caller->{over})
	{
		$caller->close;
		$ended{lost}++;
		return;
	}
	my ($out, $error) = $caller->wait;
	my $how = sqlstate($error) || $out;

	$ended{$how}++ if $how ne '';
	return;
}

# ---- what is done meanwhile ----

sub nothing { return; }

sub some_worker
{
	my ($chance) = @_;
	my @pids = split /\n/, ask(q{SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker' ORDER BY pid});

	return @pids ? $pids[ int($chance * @pids) ] : undef;
}

sub some_process
{
	my ($chance) = @_;
	my @alive = grep { $_ && !$_->{over} } @callers;

	return $chance < 0.4 && @alive ? $alive[0]->backend : some_worker($chance);
}

# By kill -9; the server restarts, unless the process has just ended by itself.
sub kill_it
{
	my ($pid) = @_;
	my $from = -s $node->logfile;
	my $until = time() + 20;

	return unless kill 9, $pid;
	sleep(0.02) until log_since($node, $from) =~ /reinitializing.*ready to accept connections/s || time() > $until;
	return;
}

sub kill_process { my $pid = some_worker(@_) or return; return kill_it($pid); }
sub kill_caller { my ($caller) = grep { $_ && $_->busy } @callers; return $caller && kill_it($caller->backend); }
sub terminate { my $pid = some_process(@_) or return; return ask("SELECT pg_terminate_backend($pid)"); }
sub cancel { my $pid = some_process(@_) or return; return ask("SELECT pg_cancel_backend($pid)"); }
sub restart_at_once { $node->stop('immediate'); return $node->start; }
sub restart { $node->stop('fast'); return $node->start; }
sub requeue { return ask('SELECT put_some_back()'); }
sub vacuum { my ($chance) = @_; return ask($chance < 0.5 ? 'VACUUM staging' : 'VACUUM ANALYZE'); }
sub rewrite { my ($chance) = @_; return ask($chance < 0.5 ? 'VACUUM FULL staging' : 'CLUSTER staging USING staging_pkey'); }

sub new_form
{
	$version++;
	return ask(qq{SELECT epro_etl.register_form('MOOD', '{"type": "object", "required": ["mood01"], "properties": {
		"mood01": {"type": "integer", "minimum": 0, "maximum": 3}, "mood02": {"type": "integer"}, "note": {"type": "string"},
		"of_version_$version": {"type": "string"}}}', '$seed.$version')});
}

# What may defer claims otherwise: it reads first, and takes what it has judged.
sub new_check
{
	my ($chance) = @_;
	my $policy = $chance < 0.5 ? 'defer' : 'reject';

	ask(q{SELECT epro_etl.remove_edit_check('MOOD', 'known')});
	ask(qq{SELECT epro_etl.add_lookup('MOOD', 'known', 'EXISTS (SELECT FROM public.known k WHERE k.id = mood01)', on_timeout => '$policy', timeout => '2 s')});

	ask(q{SELECT epro_etl.remove_edit_check('MOOD', 'high') FROM epro_etl.edit_check WHERE check_name = 'high' AND removed_at IS NULL});
	return ask(q{SELECT epro_etl.add_edit_check('MOOD', 'high', 'mood01 < } . int($chance * 4) . q{', severity => 'warning')});
}

sub change_sink
{
	$version++;
	ask(qq{ALTER TABLE mood_sink ADD COLUMN extra_$version text});
	return ask(qq{ALTER TABLE mood_sink DROP COLUMN extra_$version});
}

# Runs fail meanwhile.
sub rename_column
{
	my ($chance) = @_;

	ask('ALTER TABLE mood_sink RENAME COLUMN mood02 TO mood02_other');
	sleep(0.3 * $chance);
	return ask('ALTER TABLE mood_sink RENAME COLUMN mood02_other TO mood02');
}

sub change_source
{
	$version++;
	ask(qq{ALTER TABLE staging ADD COLUMN extra_$version text});
	return ask(qq{ALTER TABLE staging DROP COLUMN extra_$version});
}

sub lock_rows
{
	my ($chance) = @_;

	return ask('BEGIN; SELECT count(*) FROM (SELECT FROM staging TABLESAMPLE SYSTEM (30) FOR UPDATE SKIP LOCKED) x; SELECT pg_sleep(' . 0.3 * $chance . '); COMMIT');
}

sub lock_table
{
	my ($chance) = @_;
	my $table = (qw(staging mood_sink mood_latest epro_etl.quarantine))[ int($chance * 4) ];

	return ask("BEGIN; LOCK TABLE $table IN EXCLUSIVE MODE; SELECT pg_sleep(0.1); COMMIT");
}

# Against the order in which a chunk locks.
sub deadlock
{
	my ($chance) = @_;

	return ask('BEGIN; LOCK TABLE epro_etl.quarantine IN EXCLUSIVE MODE; SELECT pg_sleep(0.05);'
		  . " LOCK TABLE mood_sink IN EXCLUSIVE MODE; COMMIT");
}

# The sinks' disk, until a run has met it.
sub fill_disk
{
	my ($chance) = @_;
	my $path = "$disk/../filler";
	my $block = "\0" x 8192;

	open my $file, '>', $path or die "could not write $path: $!";
	1 while syswrite $file, $block;
	close $file;
	sleep(0.2 + 0.5 * $chance);
	unlink $path;
	return;
}
