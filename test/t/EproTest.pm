# What the TAP tests share: a server with the extension, psql sessions that can
# be left waiting, gates that hold a worker at a certain response, and the
# oracle.
#
# Gates make "mid-chunk" a place and not a moment: a trigger of the sink waits
# for an advisory lock that the test holds, for certain responses only. Nothing
# here sleeps to be right; what is waited for is a condition in the server.
package EproTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  create_node create_fixture stage restage observer until_true await_back
  close_gate open_gates await_gate await_stubborn gate_open_for
  survivors oracle_ok status_of sqlstate key_file
  start_stream stop_stream_ok stream_shows await_stream await_arrived
  stream_processes stream_pid writer answers_ok parts
);

# how long to wait for a condition before the test gives up, in seconds
our $PATIENCE = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 60;

# Advisory locks of the gates: (GATE, id) holds a worker at a response,
# (EXIT, id) holds one that refuses to be canceled.
use constant { GATE => 77, EXIT => 78 };

# The trigger is one function for every sink. A gate marked stubborn swallows
# cancels, as a badly written trigger may, until its second lock is free.
my $fixture = <<'SQL';
CREATE TABLE staging (
    response_id bigint PRIMARY KEY,
    study text, form text, subject text, visit text,
    authored timestamptz, payload jsonb);
-- what was ever staged: the oracle's one truth
CREATE TABLE put_in (source text NOT NULL DEFAULT 'staging', response_id bigint NOT NULL, payload jsonb);

CREATE TABLE gate (id bigint PRIMARY KEY, stubborn boolean NOT NULL);
GRANT SELECT ON gate TO PUBLIC;

CREATE FUNCTION at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_stubborn boolean;
BEGIN
    SELECT stubborn INTO is_stubborn FROM public.gate WHERE id = NEW.source_id;
    IF NOT FOUND THEN
        RETURN NEW;
    END IF;
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(77, NEW.source_id::int);
    EXCEPTION WHEN query_canceled THEN
        IF NOT is_stubborn THEN
            RAISE;
        END IF;
        LOOP
            BEGIN
                PERFORM pg_advisory_xact_lock_shared(78, NEW.source_id::int);
                EXIT;
            EXCEPTION WHEN query_canceled THEN
                NULL;
            END;
        END LOOP;
    END;
    RETURN NEW;
END $$;

CREATE FUNCTION stage(first bigint, last bigint, bad int DEFAULT 0) RETURNS void LANGUAGE sql AS $$
    WITH made AS (
        INSERT INTO staging
        SELECT g, 'ST01', 'MOOD', 'S-' || (g % 97), 'V' || (g % 5), '2026-01-01 08:00+00'::timestamptz + g * interval '1 minute',
               jsonb_build_object('mood01', CASE WHEN bad > 0 AND g % bad = 0 THEN 9 ELSE g % 4 END,
                                  'mood02', g % 3, 'note', 'note of ' || g)
        FROM generate_series(first, last) g
        RETURNING response_id, payload)
    INSERT INTO put_in (response_id, payload) SELECT response_id, payload FROM made;
$$;

-- Rows are written past the executor: is each in all indexes of its table, those of
-- the sinks and our own?
CREATE EXTENSION amcheck;
CREATE FUNCTION index_errors(sinks text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    index regclass;
BEGIN
    FOR index IN SELECT i.indexrelid
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid JOIN pg_am a ON a.oid = c.relam
                 WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid
                   AND (t.oid IN (SELECT to_regclass(s) FROM unnest(sinks) s) OR t.relnamespace = 'epro_etl'::regnamespace) LOOP
        BEGIN
            PERFORM bt_index_check(index, true);
        EXCEPTION WHEN index_corrupted OR data_corrupted THEN
            RETURN NEXT SQLERRM;
        END;
    END LOOP;
END $$;

-- Says what is wrong, a line a thing; nothing when all is well: whatever was
-- put in is in exactly one place, once, and the ledger says what the tables say.
CREATE FUNCTION oracle(sources text[], sinks text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    places text := 'SELECT source_id::bigint AS id, ''quarantine'' AS place, run_id FROM epro_etl.quarantine';
    loaded text := 'SELECT NULL::bigint AS run_id WHERE false';
    relation text;
BEGIN
    FOREACH relation IN ARRAY sources LOOP
        places := places || format(' UNION ALL SELECT response_id, %L, NULL FROM %s', relation, relation);
    END LOOP;
    FOREACH relation IN ARRAY sinks LOOP
        places := places || format(' UNION ALL SELECT source_id, %L, run_id FROM %s', relation, relation);
        loaded := loaded || format(' UNION ALL SELECT run_id FROM %s', relation);
    END LOOP;
    RETURN QUERY EXECUTE
        'WITH p AS (SELECT id, count(*) AS n, string_agg(place, '', '') AS at FROM (' || places || ') x GROUP BY id),'
        ' i AS (SELECT response_id AS id, count(*) AS n FROM put_in GROUP BY response_id)'
        ' SELECT format(''response %s was put in %s times and is there %s times: %s'', id,'
        '        coalesce(i.n, 0), coalesce(p.n, 0), p.at)'
        ' FROM i FULL JOIN p USING (id) WHERE i.n IS DISTINCT FROM p.n ORDER BY id LIMIT 10';
    RETURN QUERY SELECT format('run %s claimed %s = loaded %s + rejected %s + duplicate %s + deferred %s does not hold',
                               run_id, claimed, h.loaded, rejected, duplicate, deferred)
        FROM epro_etl.run_history h
        WHERE claimed <> h.loaded + rejected + duplicate + deferred;
    RETURN QUERY EXECUTE
        'SELECT format(''run %s loaded %s by its ledger and %s by the sinks'', h.run_id, h.loaded, count(l.run_id))'
        ' FROM epro_etl.run_history h LEFT JOIN (' || loaded || ') l USING (run_id)'
        ' GROUP BY h.run_id, h.loaded, h.dry_run'
        ' HAVING count(l.run_id) <> CASE WHEN h.dry_run THEN 0 ELSE h.loaded END';
    RETURN QUERY
        SELECT format('run %s rejected %s by its ledger and %s by quarantine', h.run_id, h.rejected + h.duplicate, count(q.run_id))
        FROM epro_etl.run_history h LEFT JOIN epro_etl.quarantine q USING (run_id)
        GROUP BY h.run_id, h.rejected, h.duplicate, h.dry_run
        HAVING count(q.run_id) <> CASE WHEN h.dry_run THEN 0 ELSE h.rejected + h.duplicate END;
    RETURN QUERY
        SELECT format('response %s of run %s is in quarantine without a reason', q.source_id, q.run_id)
        FROM epro_etl.quarantine q
        LEFT JOIN (SELECT DISTINCT run_id, coalesce(source_id, '') AS id FROM epro_etl.finding WHERE severity = 'error') f
            ON f.run_id = q.run_id AND f.id = coalesce(q.source_id, '')
        WHERE f.run_id IS NULL LIMIT 10;
    RETURN QUERY
        SELECT format('response %s of run %s has a finding that rejects it and is not in quarantine', f.source_id, f.run_id)
        FROM epro_etl.finding f JOIN epro_etl.run_ledger l USING (run_id)
        LEFT JOIN (SELECT DISTINCT run_id, coalesce(source_id, '') AS id FROM epro_etl.quarantine) q
            ON q.run_id = f.run_id AND q.id = coalesce(f.source_id, '')
        WHERE f.severity = 'error' AND NOT l.dry_run AND q.run_id IS NULL LIMIT 10;
    RETURN QUERY SELECT * FROM index_errors(sinks);
    RETURN QUERY
        SELECT format('run %s is still going on', run_id) FROM epro_etl.run_history WHERE status = 'running';
END $$;
SQL

# A started server with the extension in its database "postgres", unless
# extension => 0. Takes settings as lines; the key file is there. install_path
# names another version's folder.
sub create_node
{
	my ($name, %args) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, $args{install_path} ? (install_path => $args{install_path}) : ());

	$node->init(%{ $args{init} || {} }, extra => [ '-E', 'UTF8', '--locale', 'C' ]);
	my $key = key_file($node, 'pseudonym.key', 'k' x 32);
	# log_statement = all, the module's default, would log what a test stages
	$node->append_conf('postgresql.conf', <<"CONF");
max_connections = 60
max_worker_processes = 16
restart_after_crash = on
log_statement = 'none'
timezone = 'UTC'
deadlock_timeout = '200ms'
epro_etl.key_file = '$key'
epro_etl.batch_size = 50
CONF
	$node->append_conf('postgresql.conf', $args{conf}) if $args{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION epro_etl') unless defined $args{extension} && !$args{extension};
	return $node;
}

# Writes a key file beside the data directory and returns its path.
sub key_file
{
	my ($node, $name, $content, $mode) = @_;
	my $path = $node->basedir . "/$name";

	open my $file, '>', $path or die "could not write $path: $!";
	print $file $content;
	close $file;
	chmod defined $mode ? $mode : 0600, $path or die "could not chmod $path: $!";
	return $path;
}

# Staging, a form, a pipeline "mood" with one sink, and the test's own tables, in
# the database "postgres" or the one that dbname names. By default the sink has
# the gates' trigger; gates => 0 leaves it plain.
sub create_fixture
{
	my ($node, %args) = @_;
	my $database = $args{dbname} || 'postgres';

	$node->safe_psql(
		$database, $fixture . <<'SQL');
SELECT epro_etl.register_form('MOOD', '{"type": "object", "required": ["mood01"], "properties": {
    "mood01": {"type": "integer", "minimum": 0, "maximum": 3},
    "mood02": {"type": "integer"},
    "note": {"type": "string"}}}');
SELECT epro_etl.create_pipeline('mood', 'staging', '{"id": "response_id"}');
SELECT epro_etl.create_sink('mood', 'MOOD', 'mood_sink');
SQL
	$node->safe_psql($database,
		'CREATE TRIGGER at_gate BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION at_gate()')
	  unless defined $args{gates} && !$args{gates};
	return;
}

# stage(SESSION, FIRST, LAST [, BAD]): every BAD-th response breaks the form.
sub stage
{
	my ($session, $first, $last, $bad) = @_;
	$session->query('SELECT stage(' . join(', ', $first, $last, $bad || 0) . ')');
	return;
}

# Everything as it was before the first run, with new responses staged.
sub restage
{
	my ($session, @what) = @_;
	$session->query('TRUNCATE staging, mood_sink, put_in, gate, epro_etl.quarantine, epro_etl.finding,'
		  . ' epro_etl.run_worker, epro_etl.run_ledger, epro_etl.requeued');
	stage($session, @what) if @what;
	return;
}

# The session that looks on: it holds the gates and asks the questions.
sub observer
{
	my ($node, %args) = @_;
	return EproTest::Psql->new($node, %args);
}

# Waits until a server that has lost a process has restarted by itself. It takes
# connections until it knows of the loss, and ends them then, so that it is its log
# that tells: each call waits for the next restart there.
sub await_back
{
	my ($node) = @_;

	$node->{epro_restarts_seen} = $node->wait_for_log(qr/all server processes terminated; reinitializing.*ready to accept connections/s,
		$node->{epro_restarts_seen} || 0);
	return;
}

# Waits until a query says "t" (or what is expected).
sub until_true
{
	my ($session, $query, $expected) = @_;
	my $end = time() + $PATIENCE;
	my $got;

	$expected = 't' unless defined $expected;
	while (time() < $end)
	{
		$got = $session->query($query);
		return 1 if $got eq $expected;
		sleep(0.01);
	}
	diag("waited $PATIENCE s for \"$expected\" of: $query\nlast: $got\n"
		  . $session->query(q{SELECT pid, backend_type, state, wait_event_type, wait_event, left(query, 80) FROM pg_stat_activity WHERE pid <> pg_backend_pid()}));
	return 0;
}

# close_gate(SESSION, ID [, STUBBORN]): whoever stores this response waits
# until SESSION opens the gates.
sub close_gate
{
	my ($session, $id, $stubborn) = @_;
	my $mark = $stubborn ? 'true' : 'false';

	$session->query('SELECT pg_advisory_lock(' . GATE . ", $id)");
	$session->query('SELECT pg_advisory_lock(' . EXIT . ", $id)") if $stubborn;
	$session->query("INSERT INTO gate VALUES ($id, $mark)");
	return;
}

sub open_gates
{
	my ($session) = @_;
	$session->query('SELECT pg_advisory_unlock_all()');
	$session->query('DELETE FROM gate');
	return;
}

sub gate_open_for
{
	my ($session, $id) = @_;
	return $session->query('SELECT pg_advisory_unlock(' . GATE . ", $id)");
}

# Waits until so many workers stand at gates.
sub await_gate
{
	my ($session, $n) = @_;
	return until_true($session,
		q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND NOT granted AND classid = } . GATE,
		defined $n ? $n : 1);
}

sub await_stubborn
{
	my ($session) = @_;
	return until_true($session,
		q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND NOT granted AND classid = } . EXIT);
}

# Workers that there are at this moment: one query, no waiting. The view joins
# catalogs that a test may have locked; the function below it does not.
sub survivors
{
	my ($session) = @_;
	return $session->query(q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'});
}

# One assertion: nothing lost, nothing twice, ledger and tables agree.
sub oracle_ok
{
	my ($session, $name, %args) = @_;
	my $list = sub { 'ARRAY[' . join(', ', map { "'$_'" } @_) . ']::text[]' };
	my $sources = $list->(@{ $args{sources} || ['staging'] });
	my $sinks = $list->(@{ $args{sinks} || ['mood_sink'] });

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($session->query("SELECT * FROM oracle($sources, $sinks)"), '', "oracle: $name");
}

# "status|sqlstate" of the newest run, as the ledger has it.
sub status_of
{
	my ($session, $columns) = @_;
	$columns = 'status' unless defined $columns;
	return $session->query("SELECT concat_ws('|', $columns) FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1");
}

# Starts the stream of "mood" and waits until all its workers are at work; stages
# as JSON, or undef.
sub start_stream
{
	my ($session, $stages, $queue) = @_;

	$stages = defined $stages ? "'$stages'" : 'NULL';
	$queue = 'NULL' unless defined $queue;
	$session->query("SELECT epro_etl.start_stream('mood', $stages, $queue)");
	return await_stream($session, q{state = 'running' AND workers = workers_wanted AND workers =
		(SELECT count(*) FROM epro_etl.stat_progress p WHERE p.run_id = stat_stream.run_id AND p.phase <> 'starting')});
}

# A condition on the stream of "mood", as stat_stream shows it.
sub await_stream
{
	my ($session, $condition) = @_;
	return until_true($session, "SELECT coalesce((SELECT $condition FROM epro_etl.stat_stream WHERE pipeline = 'mood'), false)");
}

# Columns of stat_stream; nothing when there is no stream.
sub stream_shows
{
	my ($session, $columns) = @_;
	return $session->query("SELECT concat_ws('|', $columns) FROM epro_etl.stat_stream WHERE pipeline = 'mood'");
}

# Waits until so many responses are in the sink or in quarantine.
sub await_arrived
{
	my ($session, $n) = @_;
	return until_true($session,
		'SELECT (SELECT count(*) FROM mood_sink) + (SELECT count(*) FROM epro_etl.quarantine)', $n);
}

# Processes of all streams that there are at this moment.
sub stream_processes
{
	my ($session) = @_;
	return $session->query(
		q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type IN ('epro_etl stream', 'epro_etl stage worker')});
}

# A process of the stream: the leader, or (given a stage) a worker of the group
# that begins with it. Waits until it is there.
sub stream_pid
{
	my ($session, $stage) = @_;
	my $query = defined $stage
	  ? "FROM pg_stat_activity WHERE backend_type = 'epro_etl stage worker' AND application_name = 'epro_etl stream mood $stage'"
	  : q{FROM pg_stat_activity WHERE backend_type = 'epro_etl stream'};

	until_true($session, "SELECT count(*) > 0 $query");
	return $session->query("SELECT min(pid) $query");
}

# Stops the stream of "mood": it says that there was one, and nothing is left.
sub stop_stream_ok
{
	my ($session, $name, $arguments) = @_;

	$arguments = $arguments ? ", $arguments" : '';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->query("SELECT epro_etl.stop_stream('mood'$arguments)"), 't', "$name: stopped");
	is(stream_processes($session), 0, "$name: no process of the stream is left");
	return is(stream_shows($session, 'state'), '', "$name: no stream is wanted");
}

# A session that stages rows in small transactions until all are there; finish
# it with wait().
sub writer
{
	my ($node, $first, $last, $bad) = @_;
	my $session = EproTest::Psql->new($node);

	$bad ||= 0;
	$session->send("DO \$\$ BEGIN FOR i IN $first..$last BY 10 LOOP PERFORM stage(i, least(i + 9, $last), $bad); COMMIT;"
		  . ' PERFORM pg_sleep(0.002); END LOOP; END $$');
	return $session;
}

# One assertion: every response in the sink has its own answers.
sub answers_ok
{
	my ($session, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($session->query(q{SELECT s.source_id FROM mood_sink s JOIN put_in i ON i.response_id = s.source_id
		WHERE s.note IS DISTINCT FROM i.payload->>'note' OR s.mood02 IS DISTINCT FROM (i.payload->>'mood02')::int ORDER BY 1 LIMIT 10}),
		'', "$name: each row has its own answers");
}

# Runs the parts of a test, or those that are named after it ("prove FILE :: PART").
sub parts
{
	my ($where, @names) = @_;

	foreach my $name (@names)
	{
		next if @ARGV && !grep { $_ eq $name } @ARGV;
		note("part $name");
		no strict 'refs';
		&{"${where}::$name"}();
	}
	return;
}

# The SQLSTATE of the first error or fatal error in what psql wrote.
sub sqlstate
{
	my ($text) = @_;
	return $text =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5}):/ ? $1 : '';
}

# A psql session that can be sent a statement and asked for the result later.
# PostgreSQL's own BackgroundPsql waits for each statement, and differs from
# version to version.
package EproTest::Psql;

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use Test::More;
use Time::HiRes qw(sleep time);

# new(NODE, dbname => , user => , options => { setting => value })
sub new
{
	my ($class, $node, %args) = @_;
	my $self = bless { stdin => '', stdout => '', stderr => '', n => 0, over => 0 }, $class;
	my $connection = $node->connstr($args{dbname} || 'postgres');

	$connection .= " user=$args{user}" if $args{user};
	$connection .= " application_name=$args{name}" if $args{name};
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_=$args{options}{$_}" } sort keys %{ $args{options} || {} };
	$self->{run} = IPC::Run::start(
		[
			$node->installed_command('psql'), '-XAtq', '-d', $connection,
			'-v', 'VERBOSITY=verbose', '-v', 'SHOW_CONTEXT=never', '-f', '-'
		],
		'<', \$self->{stdin}, '>', \$self->{stdout}, '2>', \$self->{stderr});
	$self->{backend} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

# The process in the server, and psql itself.
sub backend { return $_[0]->{backend}; }
sub client { return $_[0]->{run}->{KIDS}->[0]->{PID}; }

# Sends statements and returns at once.
sub send
{
	my ($self, $sql) = @_;
	my $n = ++$self->{n};

	$self->{sent} = $sql;
	$self->{stdout} = $self->{stderr} = '';
	$self->{stdin} .= "$sql\n;\n\\echo end $n\n\\warn end $n\n";
	eval { $self->{run}->pump_nb while length $self->{stdin}; 1 } or $self->{over} = 1;
	return $self;
}

# Waits for what was sent; returns psql's output and its error output. A
# session that is lost is an end too.
sub wait
{
	my ($self) = @_;
	my $n = $self->{n};
	my $end = time() + $EproTest::PATIENCE;

	until ($self->{over} || ($self->{stdout} =~ /^end $n\n/m && $self->{stderr} =~ /end $n\n/m))
	{
		die "psql did not answer within $EproTest::PATIENCE s: $self->{sent}\n$self->{stdout}\n$self->{stderr}\n"
		  if time() > $end;
		if ($self->{run}->pumpable)
		{
			eval { $self->{run}->pump_nb; 1 } or $self->{over} = 1;
			sleep(0.002);
		}
		else
		{
			$self->{over} = 1;
		}
	}
	my ($out, $error) = @$self{qw(stdout stderr)};
	$out =~ s/^end $n\n//m;
	$error =~ s/end $n\n//m;
	$out =~ s/\n\z//;
	note("$error") if $error ne '';
	return ($out, $error);
}

# Is the statement that was sent still going on?
sub busy
{
	my ($self) = @_;
	my $n = $self->{n};

	eval { $self->{run}->pump_nb; 1 } or $self->{over} = 1;
	return !$self->{over} && $self->{stdout} !~ /^end $n\n/m;
}

# Sends and waits; returns (output, error output), whatever happens.
sub try
{
	my ($self, $sql) = @_;
	return $self->send($sql)->wait;
}

# Sends and waits; an error ends the test.
sub query
{
	my ($self, $sql) = @_;
	my ($out, $error) = $self->try($sql);

	die(($self->{over} ? 'session lost at' : 'error of') . ": $sql\n$error\n") if $error =~ /(?:ERROR|FATAL|PANIC):/ || $self->{over};
	return $out;
}

sub close
{
	my ($self) = @_;

	eval { $self->{stdin} .= "\\q\n"; $self->{run}->finish; };
	$self->{over} = 1;
	return;
}

1;
