# study_participants() over three servers: study and participants on a second,
# the permission service on a third. Each hop in turn is too slow for what is
# left of the deadline: the error names it, the session and its transaction go
# on, and on the other servers nothing runs any more, at once. A server that is
# down is named by its hop as well. Row security there goes by the login.
#
# What is too slow sleeps, once for 100 ms under a budget of 50 ms and once for a
# minute: what is left behind of that cannot be missed.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $registry = create_remote('registry', <<'SQL');
CREATE TABLE trial (code text PRIMARY KEY);
INSERT INTO trial VALUES ('ST01'), ('ST02');
CREATE TABLE person (trial text, pseudonym text, centre text, state text, since date);
INSERT INTO person
    SELECT 'ST01', encode(sha256(convert_to('P-' || g, 'UTF8')), 'hex'), (ARRAY['N', 'S', 'HIDDEN'])[1 + g % 3], 'enrolled', DATE '2026-01-01' + g % 300
    FROM generate_series(1, 3000) g;
-- the gateway's login is not to see one of the sites
ALTER TABLE person ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_gateway ON person TO gateway USING (centre <> 'HIDDEN');
CREATE POLICY of_auditor ON person TO auditor USING (true);
CREATE VIEW slow_trial AS SELECT code FROM trial WHERE slow();
CREATE VIEW slow_person WITH (security_invoker) AS SELECT p.* FROM person p, LATERAL (SELECT slow() OFFSET 0) s (slept) WHERE slept;
SQL
my $service = create_remote('service', <<'SQL');
CREATE TABLE permitted (trial text, centre text, login text);
INSERT INTO permitted VALUES ('ST01', 'N', 'site_n'), ('ST01', 'HIDDEN', 'site_n'), ('ST01', 'S', 'site_s'), ('ST01', 'S', 'nobody_here'), ('ST02', 'N', 'site_n');
CREATE VIEW slow_permitted AS SELECT * FROM permitted WHERE slow();
SQL
my $node = create_node('here');
create_chain();

my $look = observer($node);
my %there = (registry => observer($registry, name => 'look'), service => observer($service, name => 'look'));
my $reader = caller_of('reader');
# the hop, the server that is slow then
my @hops = ([ 'study', 'registry' ], [ 'participants', 'registry' ], [ 'permission', 'service' ]);

parts('main', qw(by_role slow_in_turn own_timeout goes_on locked canceled down));

$_->close foreach ($look, $reader, values %there);
foreach my $server ($node, $registry, $service)
{
	$server->stop('fast');
	unlike(PostgreSQL::Test::Utils::slurp_file($server->logfile), qr/PANIC:|TRAP:|was terminated by signal/, $server->name . ': no process crashed');
}
done_testing();

# A server with what slow() takes, in seconds, and two logins.
sub create_remote
{
	my ($name, $sql) = @_;
	my $remote = PostgreSQL::Test::Cluster->new($name);

	$remote->init(extra => [ '-E', 'UTF8', '--locale', 'C' ]);
	$remote->append_conf('postgresql.conf', "log_statement = 'none'\ntimezone = 'UTC'\n");
	$remote->start;
	$remote->safe_psql('postgres', <<"SQL");
CREATE ROLE gateway LOGIN;
CREATE ROLE auditor LOGIN;
-- in milliseconds, and one more; a sequence, since postgres_fdw's transactions there keep their snapshot
CREATE SEQUENCE pace;
SELECT setval('pace', 1);
CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS \$\$ BEGIN PERFORM pg_sleep((SELECT (last_value - 1) / 1000.0 FROM public.pace)); RETURN true; END \$\$;
$sql
GRANT SELECT ON ALL TABLES IN SCHEMA public TO gateway, auditor;
GRANT SELECT ON pace TO gateway, auditor;
SQL
	return $remote;
}

# The chain, registered with the slow views, which are as fast as pace says.
sub create_chain
{
	my $sql = 'CREATE EXTENSION postgres_fdw; CREATE ROLE reader LOGIN; CREATE ROLE auditor LOGIN; CREATE ROLE site_n; CREATE ROLE site_s;'
	  . ' GRANT site_n TO reader; GRANT site_n, site_s TO auditor;';

	foreach my $server ($registry, $service)
	{
		my ($name, $host, $port) = ($server->name, $server->host, $server->port);

		$sql .= "CREATE SERVER $name FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres', connect_timeout '5');"
		  . "CREATE USER MAPPING FOR reader SERVER $name OPTIONS (user 'gateway', password_required 'false');"
		  . "CREATE USER MAPPING FOR auditor SERVER $name OPTIONS (user 'auditor', password_required 'false');";
	}
	$node->safe_psql('postgres', $sql . <<'SQL');
CREATE FOREIGN TABLE trial (code text) SERVER registry OPTIONS (table_name 'slow_trial');
CREATE FOREIGN TABLE person (trial text, pseudonym text, centre text, state text, since date) SERVER registry OPTIONS (table_name 'slow_person');
CREATE FOREIGN TABLE permitted (trial text, centre text, login text) SERVER service OPTIONS (table_name 'slow_permitted');
CREATE TABLE written (n int);
GRANT USAGE ON SCHEMA epro_etl TO reader, auditor;
GRANT EXECUTE ON FUNCTION epro_etl.study_participants, epro_etl.with_timeout TO reader, auditor;
GRANT SELECT ON trial, person, permitted TO reader, auditor;
GRANT INSERT, SELECT, TRUNCATE ON written TO reader;
SQL
	set_chain();
	return;
}

# Registers all hops; a timeout for one of them: set_chain(participants => '1 s').
sub set_chain
{
	my (%timeouts) = @_;
	my %of = (
		study => q{'trial', '{"study": "code"}'},
		participants => q{'person', '{"study": "trial", "subject_key": "pseudonym", "site": "centre", "status": "state", "enrolled_on": "since"}'},
		permission => q{'permitted', '{"study": "trial", "site": "centre", "role": "login"}'});

	foreach my $hop (qw(study participants permission))
	{
		my $timeout = $timeouts{$hop} ? "'$timeouts{$hop}'" : 'NULL';
		$node->safe_psql('postgres', "SELECT epro_etl.set_hop('$hop', $of{$hop}, $timeout)");
	}
	return;
}

# A session that shows contexts; connected to the other servers by its first call.
sub caller_of
{
	my ($user) = @_;
	my $session = EproTest::Psql->new($node, user => $user);

	$session->query("\\set SHOW_CONTEXT errors\n");
	$session->query(q{SELECT count(*) FROM epro_etl.study_participants('ST01')});
	return $session;
}

sub pace
{
	my ($server, $seconds) = @_;
	$there{$server}->query("SELECT setval('pace', (1 + $seconds * 1000)::int)");
	return;
}

# One assertion, of this very moment: nobody is doing anything on the other servers.
sub quiet
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(join(' ', map { running($_) } sort keys %there), '0 0', "$name: nothing runs on the other servers");
}

sub running
{
	my ($server) = @_;
	return $there{$server}->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
		AND (state = 'active' OR wait_event = 'PgSleep')});
}

sub sites
{
	my ($session, $study) = @_;
	return $session->query("SELECT string_agg(site || ' ' || n, ', ' ORDER BY site) FROM (SELECT site, count(*) AS n FROM epro_etl.study_participants('$study', '1 min') GROUP BY site) s");
}

# What is permitted is by the local role, what is seen there by the login.
sub by_role
{
	my $auditor = caller_of('auditor');

	is(sites($reader, 'ST01'), 'N 1000', 'by role: the reader, whose login there does not see the hidden site');
	is(sites($auditor, 'ST01'), 'HIDDEN 1000, N 1000, S 1000', 'by role: the auditor');
	is($reader->query(q{SELECT count(*) FROM epro_etl.study_participants('ST02')}), 0, 'by role: a study without participants');
	my (undef, $error) = $reader->try(q{SELECT epro_etl.study_participants('ST99')});
	like($error, qr/P0002: study "ST99" does not exist, or is not open to role "reader"/, 'by role: an unknown study');
	like($error, qr/hop "study" of study_participants\(\)/, 'by role: the hop that says so');
	$auditor->close;
	return;
}

sub slow_in_turn
{
	foreach my $slow (@hops)
	{
		my ($hop, $server) = @$slow;

		foreach my $seconds (0.1, 60)
		{
			my $name = "$hop takes $seconds s";

			fast_before($hop);
			pace($server, $seconds);
			my $error = late($hop, q{SELECT count(*) FROM epro_etl.study_participants('ST01', '50 ms')});
			quiet($name);
			like($error, qr/EP001: deadline exceeded: hop "$hop" of study_participants\(\) did not answer within the ([0-9]+) ms it had/, "$name: the error names it");
			cmp_ok($error =~ /within the ([0-9]+) ms/ ? $1 : 99, '<=', 50, "$name: and the time it had");
			like($error, qr/DETAIL:  The function's timeout of 50 ms is over/, "$name: and whose time it was");
			pace($server, 0);
			set_chain();
			is(sites($reader, 'ST01'), 'N 1000', "$name: the session goes on");
		}
	}
	return;
}

# Of two hops on one server the one before is asked at its own, fast relation.
sub fast_before
{
	my ($hop) = @_;

	$node->safe_psql('postgres', q{CREATE FOREIGN TABLE IF NOT EXISTS fast_trial (code text) SERVER registry OPTIONS (table_name 'trial'); GRANT SELECT ON fast_trial TO reader;}
		  . q{SELECT epro_etl.set_hop('study', 'fast_trial', '{"study": "code"}')}) if $hop ne 'study';
	return;
}

# The error of a call that is late at this hop. On a busy machine one before it
# can take all of so little time: then again.
sub late
{
	my ($hop, $call) = @_;
	my $error;

	foreach my $try (1 .. 20)
	{
		(undef, $error) = $reader->try($call);
		last if $error !~ /hop "(?:study|participants)"/ || $error =~ /hop "$hop"/;
	}
	return $error;
}

# A hop's own timeout can only shorten what it has.
sub own_timeout
{
	set_chain(permission => '50 ms');
	pace('service', 60);
	foreach my $timeout ('NULL', "'1 min'")
	{
		my (undef, $error) = $reader->try("SELECT count(*) FROM epro_etl.study_participants('ST01', $timeout)");
		quiet("own timeout, $timeout");
		like($error, qr/EP001: deadline exceeded: hop "permission" .* within the 50 ms it had\nDETAIL:  The hop's own timeout of 50 ms is over/, "own timeout, $timeout: named");
	}
	set_chain(permission => '1 min');
	my (undef, $error) = $reader->try(q{SELECT count(*) FROM epro_etl.study_participants('ST01', '80 ms')});
	quiet('own timeout, longer');
	like($error, qr/EP001: .*\nDETAIL:  The function's timeout of 80 ms is over/, 'own timeout, longer: the function\'s is over first');
	pace('service', 0);
	set_chain();
	return;
}

# The transaction around it goes on and commits, by an exception block or a savepoint;
# what is left of it there as well.
sub goes_on
{
	foreach my $slow (@hops)
	{
		my ($hop, $server) = @$slow;
		my $name = "goes on, $hop";

		fast_before($hop);
		$reader->query('TRUNCATE written');
		$reader->query('BEGIN');
		$reader->query('INSERT INTO written VALUES (1)');
		# both servers are in this transaction already
		is(sites($reader, 'ST01'), 'N 1000', "$name: first");
		pace($server, 60);
		is($reader->query(<<'SQL'), '', "$name: caught");
DO $$ BEGIN
    PERFORM epro_etl.study_participants('ST01', '50 ms');
    INSERT INTO written VALUES (0);
EXCEPTION WHEN SQLSTATE 'EP001' THEN
    INSERT INTO written VALUES (2);
END $$;
SQL
		quiet("$name, exception block");
		$reader->query('SAVEPOINT s');
		my (undef, $error) = $reader->try(q{SELECT epro_etl.study_participants('ST01', '50 ms')});
		quiet("$name, savepoint");
		is(sqlstate($error), 'EP001', "$name: again");
		$reader->query('ROLLBACK TO s');
		# an outer budget stays what it is
		$reader->query('SAVEPOINT t');
		(undef, $error) = $reader->try(q{SELECT * FROM epro_etl.with_timeout('50 ms', 'SELECT count(*) FROM epro_etl.study_participants(''ST01'', ''1 min'')') AS t (n bigint)});
		quiet("$name, outer budget");
		like($error, qr/EP001: deadline exceeded: the query did not end within/, "$name: the outer budget says so");
		$reader->query('ROLLBACK TO t');
		pace($server, 0);
		is(sites($reader, 'ST01'), 'N 1000', "$name: the same transaction asks again");
		$reader->query('INSERT INTO written VALUES (3)');
		$reader->query('COMMIT');
		is($reader->query('SELECT array_agg(n ORDER BY n) FROM written'), '{1,2,3}', "$name: it commits");
		set_chain();
	}
	return;
}

# Waiting for a lock is within the budget as well.
sub locked
{
	$look->query(q{BEGIN; ALTER FOREIGN TABLE permitted OPTIONS (ADD fetch_size '50')});
	my $error = late('permission', q{SELECT epro_etl.study_participants('ST01', '50 ms')});
	like($error, qr/EP001: deadline exceeded: hop "permission"/, 'locked: named');
	$look->query('ROLLBACK');
	is(sites($reader, 'ST01'), 'N 1000', 'locked: and then not');
	return;
}

# What is not the function's to say stays as it is, with a line that names the hop.
sub canceled
{
	foreach my $slow (@hops)
	{
		my ($hop, $server) = @$slow;
		my $name = "canceled, $hop";

		fast_before($hop);
		pace($server, 60);
		my (undef, $error) = $reader->try(q{SET statement_timeout = '300 ms'; SELECT epro_etl.study_participants('ST01', '1 min')});
		quiet("$name, statement timeout");
		like($error, qr/ERROR:  57014: canceling statement due to statement timeout\n(?:.*\n)*.*hop "$hop" of study_participants\(\), which had [0-9]+ ms/, "$name: statement timeout");
		$reader->query('RESET statement_timeout');

		$reader->send(q{SELECT epro_etl.study_participants('ST01', '1 min')});
		ok(until_true($there{$server}, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1), "$name: it waits there");
		$look->query('SELECT pg_cancel_backend(' . $reader->backend . ')');
		(undef, $error) = $reader->wait;
		quiet("$name, by hand");
		like($error, qr/ERROR:  57014: canceling statement due to user request\n(?:.*\n)*.*hop "$hop" of study_participants\(\), which had 60 s/, "$name: by hand");
		pace($server, 0);
		set_chain();
		is(sites($reader, 'ST01'), 'N 1000', "$name: works again");
	}
	return;
}

# A server that is down: its own SQLSTATE, and the hop.
sub down
{
	foreach my $case ([ 'study', 'registry', $registry ], [ 'permission', 'service', $service ])
	{
		my ($hop, $name, $server) = @$case;

		$there{$name}->close;
		$server->stop('fast');
		foreach my $session ($reader, EproTest::Psql->new($node, user => 'reader'))
		{
			$session->query("\\set SHOW_CONTEXT errors\n");
			my (undef, $error) = $session->try(q{SELECT epro_etl.study_participants('ST01', '10 s')});
			like(sqlstate($error), qr/^08...$/, "down, $hop: SQLSTATE");
			like($error, qr/hop "$hop" of study_participants\(\), which had [0-9]+ m?s/, "down, $hop: named");
			$session->close if $session != $reader;
		}
		$server->start;
		$there{$name} = observer($server, name => 'look');
		is(sites($reader, 'ST01'), 'N 1000', "down, $hop: works again");
	}
	return;
}
