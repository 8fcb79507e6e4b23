# The context reaches a second server: it has the time that is left as its own
# statement_timeout, and the request in its application_name, for as long as
# that holds here and no longer. Whatever ends a query here ends it there; where
# nobody is left here to end it, the other server does so itself.
#
# "told" is a view over there that says what its session has. "heard" has a row
# for each statement that inserted into a table there.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use RemoteTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $far = create_far('far');
$far->safe_psql('postgres', <<'SQL');
CREATE VIEW told AS SELECT (SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout') AS ms,
    current_setting('application_name') AS name, pg_backend_pid() AS pid;
CREATE VIEW slow AS SELECT pg_sleep(600)::text AS x;
CREATE TABLE many (n int);
INSERT INTO many SELECT generate_series(1, 1000);
CREATE TABLE heard (ms int, name text);
CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    INSERT INTO heard SELECT ms, name FROM told;
    RETURN NULL;
END $$;
CREATE TRIGGER hear AFTER INSERT ON many FOR EACH STATEMENT EXECUTE FUNCTION hear();
CREATE TRIGGER hear AFTER INSERT ON mood_far FOR EACH STATEMENT EXECUTE FUNCTION hear();
SQL

my $node = create_node('here');
create_flow($node, $far);
my ($host, $port) = ($far->host, $far->port);
my $here = reach($node);
$here->query(<<"SQL");
CREATE SERVER brisk FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host '$host', port '$port', dbname 'postgres', options '-c statement_timeout=700', application_name 'brisk');
CREATE USER MAPPING FOR CURRENT_USER SERVER brisk OPTIONS (user 'postgres');
SELECT format('CREATE FOREIGN TABLE %s%s SERVER %s OPTIONS (table_name %L)', t || CASE s WHEN 'far' THEN '' ELSE '_' || s END, c, s, t)
    FROM unnest(ARRAY['far', 'brisk']) s,
         (VALUES ('told', '(ms int, name text, pid int)'), ('slow', '(x text)'), ('many', '(n int)')) v (t, c) \\gexec
CREATE TABLE parted (n int) PARTITION BY LIST (n);
CREATE FOREIGN TABLE parted_far PARTITION OF parted FOR VALUES IN (1) SERVER far OPTIONS (table_name 'many');
CREATE TABLE parted_here PARTITION OF parted FOR VALUES IN (2);
SQL
my $there = far_session($far);

# a query under a budget: what is in its one column
sub within
{
	my ($budget, $query, $type) = @_;
	$type ||= 'int';
	return "SELECT * FROM epro_etl.with_timeout('$budget', \$q\$$query\$q\$) AS t (x $type)";
}

parts('main', qw(registered remaining nested given_back rolled_back own_is_shorter cursors copied inserted read_only whose clocks request
	round_trips workers ends killed down dangling dropped_meanwhile dumped));

$_->close foreach ($here, $there);
$node->stop('fast');
$far->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal 1[16]/, 'no process crashed');
done_testing();

sub between
{
	my ($got, $least, $most, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($got =~ /^\d+$/ && $got >= $least && $got <= $most, $name) || diag("got $got, not in $least .. $most");
}

# an error: its SQLSTATE, and what its text has to say
sub refused
{
	my ($session, $sql, $sqlstate, $like, $name) = @_;
	my (undef, $error) = $session->try($sql);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sqlstate($error), $sqlstate, "$name: SQLSTATE");
	return like($error, $like, "$name: text");
}

# nothing of ours goes on over there
sub idle_there
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($there->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()}),
		0, "$name: no query goes on there");
}

sub slow_there
{
	return until_true($there, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'}, 1);
}

# What can be registered, and what it says when it cannot.
sub registered
{
	is($here->query(within('10 s', 'SELECT ms FROM told')), 0, 'registered: who is not, is not told');
	refused($here, q{SELECT epro_etl.add_context_server(NULL)}, '22004', qr/server must not be null/, 'registered: no name');
	refused($here, q{SELECT epro_etl.add_context_server('nowhere')}, '42704', qr/HINT:  Make it with CREATE SERVER/, 'registered: no server');
	$here->query('CREATE FOREIGN DATA WRAPPER other; CREATE SERVER other FOREIGN DATA WRAPPER other');
	refused($here, q{SELECT epro_etl.add_context_server('other')}, '0A000', qr/not one of postgres_fdw.*HINT/s, 'registered: another wrapper');
	$here->query(q{CREATE SERVER gone FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere', port '1'); CREATE USER MAPPING FOR CURRENT_USER SERVER gone});
	refused($here, q{SELECT epro_etl.add_context_server('gone')}, '08001', qr/server "gone" cannot be told: could not connect.*HINT/s, 'registered: cannot be reached');
	is($here->query(q{SELECT to_regclass('gone_settings') IS NULL}), 't', 'registered: nothing is left of it');
	$here->query('CREATE TABLE far_settings (name text, setting text, reset_val text)');
	refused($here, q{SELECT epro_etl.add_context_server('far')}, '42P07', qr/"public.far_settings" is there already/, 'registered: the name is taken');
	$here->query('DROP TABLE far_settings');
	refused($here, q{SET search_path = ''; SELECT epro_etl.add_context_server('far')}, '3F000', qr/no schema has been selected.*HINT/s, 'registered: no schema');
	$here->query('RESET search_path');

	is($here->query(q{SELECT epro_etl.add_context_server('far')}), 'far_settings', 'registered');
	is($here->query(q{SELECT epro_etl.add_context_server('far')}), 'far_settings', 'registered twice');
	is($here->query(q{SELECT epro_etl.add_context_server('far', 'public.far_settings')}), 'far_settings', 'registered by a name');
	is($here->query('CREATE SCHEMA "A b"; SELECT epro_etl.add_context_server(\'brisk\', \'"A b"."c D"\')'), '"A b"."c D"', 'registered in a place of its own');
	is($here->query('SELECT count(*) FROM epro_etl.context_server'), 2, 'registered: two rows');
	is($here->query(q{SELECT epro_etl.context_server_of('"A b"."c D"')}), 'brisk', 'registered: which server');
	is($here->query('SELECT ms, name FROM told'), '0|postgres_fdw', 'registered: without a deadline it has its own');

	$here->query('CREATE ROLE nobody LOGIN; GRANT USAGE ON SCHEMA epro_etl TO nobody; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO nobody; GRANT USAGE ON FOREIGN SERVER far TO nobody');
	refused($here, q{SET ROLE nobody; SELECT epro_etl.add_context_server('far', 'public.far_settings')}, '42501', qr/permission denied to add a server.*HINT/s, 'registered: not by anybody');
	$here->query('RESET ROLE; CREATE SERVER unmapped FOREIGN DATA WRAPPER postgres_fdw');
	refused($here, q{SELECT epro_etl.add_context_server('unmapped')}, '42704', qr/cannot be told: user mapping not found.*HINT/s, 'registered: no user mapping');
	refused($here, q{SELECT epro_etl.add_context_server('far', 'another')}, '42710', qr/told through "public.far_settings" already.*HINT/s, 'registered: not twice by other names');
	refused($here, q{SELECT epro_etl.add_context_server('unmapped', 'pg_temp.unmapped')}, '22023', qr/temporary/, 'registered: not for this session only');

	# who may use the server may use the table; one that is somebody else's is not believed
	is($here->query(q{SELECT has_column_privilege('nobody', 'far_settings', 'setting', 'UPDATE')}), 'f', 'registered: nothing for everybody');
	$here->query(q{SELECT epro_etl.remove_context_server('far'); SELECT epro_etl.add_context_server('far')});
	is($here->query(q{SELECT has_column_privilege('nobody', 'far_settings', 'setting', 'UPDATE')}), 't', 'registered: for those who may use the server');
	$here->query('ALTER FOREIGN TABLE far_settings OWNER TO nobody');
	is($here->query(q{SELECT epro_etl.context_server_of('far_settings') IS NULL}), 't', 'registered: not through a table of somebody else');
	$here->query('ALTER FOREIGN TABLE far_settings OWNER TO postgres');
	return;
}

sub remaining
{
	between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'remaining: with_timeout');
	between($here->query(within('10 s', 'SELECT ms FROM told_brisk')), 700, 700, 'remaining: its own is shorter');
	is($here->query(within('1000 h', 'SELECT ms FROM told')), 0, 'remaining: longer than it can be told');
	is($here->query('SELECT ms FROM told'), 0, 'remaining: then its own');
	$here->query('SET statement_timeout = 9000');
	between($here->query('SELECT ms FROM told'), 8000, 9000, 'remaining: statement_timeout');
	# what is left is less than it was
	between($here->query('SELECT ms FROM told, (SELECT pg_sleep(0.5) OFFSET 0) s'), 8000, 9000, 'remaining: at the start of the statement');
	between($here->query(q{DO $$ BEGIN PERFORM pg_sleep(2); PERFORM set_config('test.ms', ms::text, false) FROM told; END $$; SELECT current_setting('test.ms')}), 5000, 7000, 'remaining: later in a statement');
	$here->query('RESET statement_timeout');
	is($here->query('SELECT ms FROM told'), 0, 'remaining: none again');
	# where the plan reaches it in a part of its own
	my %parts = (
		'a subquery' => 'SELECT (SELECT ms FROM told)',
		'a subquery a row' => 'SELECT (SELECT ms + 0 * g FROM told WHERE g > 0 OFFSET 0) FROM generate_series(1, 2) g LIMIT 1',
		'a common table' => 'WITH t AS MATERIALIZED (SELECT ms FROM told) SELECT min(ms) FROM t',
		'a union' => 'SELECT max(ms) FROM (SELECT 0 AS ms UNION ALL SELECT ms FROM told) u',
	);
	between($here->query(within('10 s', $parts{$_})), 9000, 10000, "remaining: $_") foreach (sort keys %parts);
	# it must have the time to be told the next; a try may be late
	my $ms;
	foreach (1 .. 100)
	{
		($ms) = $here->try(within('12 ms', 'SELECT ms FROM told'));
		last if $ms ne '';
	}
	is($ms, 20, 'remaining: a short time');
	return;
}

sub nested
{
	my $inner = q{SELECT x FROM epro_etl.with_timeout('%s', 'SELECT ms FROM told') AS t (x int)};

	between($here->query(within('10 s', sprintf($inner, '1 min'))), 9000, 10000, 'nested: an inner one that is longer');
	between($here->query(within('1 min', sprintf($inner, '10 s'))), 9000, 10000, 'nested: an inner one that is shorter');
	$here->query('SET statement_timeout = 5000');
	between($here->query(within('1 min', sprintf($inner, '10 s'))), 4000, 5000, 'nested: a statement_timeout that is shorter');
	$here->query('RESET statement_timeout');
	# after the inner one the outer one holds
	my $both = $here->query(within('1 min', 'SELECT concat_ws(\'|\', i.x, o.ms) FROM (SELECT x FROM epro_etl.with_timeout(\'10 s\', \'SELECT ms FROM told\') AS t (x int) OFFSET 0) i, LATERAL (SELECT ms FROM told WHERE i.x > 0 OFFSET 0) o', 'text'));
	like($both, qr/^\d+\|\d+$/, 'nested: both');
	$here->query('BEGIN');
	$here->query("CREATE TEMP TABLE seen ON COMMIT DROP AS SELECT 0 AS ms WHERE false");
	$here->query(within('1 min', q{DO $$ BEGIN PERFORM epro_etl.with_timeout('10 s', 'INSERT INTO seen SELECT ms FROM told'); INSERT INTO seen SELECT ms FROM told; END $$}));
	my ($first, $second) = split /\n/, $here->query('SELECT ms FROM seen ORDER BY ms');
	$here->query('COMMIT');
	between($first, 9000, 10000, 'nested: within');
	between($second, 50000, 60000, 'nested: behind it');
	return;
}

sub given_back
{
	$here->query('BEGIN');
	between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'given back: within');
	# what is not told of itself sees what with_timeout() left
	is($here->query(q{SET LOCAL epro_etl.context = ''; SELECT setting FROM far_settings WHERE name = 'statement_timeout'}), 0, 'given back: behind with_timeout');
	$here->query('SET LOCAL statement_timeout = 10000');
	between($here->query('SELECT ms FROM told'), 9000, 10000, 'given back: statement_timeout');
	my $pid = $here->query('SELECT pid FROM told');
	$here->query('COMMIT');
	is($here->query('SELECT ms, pid FROM told'), "0|$pid", 'given back: at the commit, in the same connection');

	$here->query('BEGIN; SET LOCAL statement_timeout = 10000; SELECT ms FROM told; ROLLBACK');
	is($here->query('SELECT ms, pid FROM told'), "0|$pid", 'given back: after a rollback');
	# a statement without a deadline, in a transaction that has told one
	$here->query('BEGIN; SET LOCAL statement_timeout = 10000');
	between($here->query('SELECT ms FROM told'), 9000, 10000, 'given back: told');
	is($here->query('SET LOCAL statement_timeout = 0; SELECT ms FROM told'), 0, 'given back: before a statement without a deadline');
	$here->query('COMMIT');
	# deferred work at the commit is under the deadline, what follows is not
	$here->query('SET statement_timeout = 10000');
	between($here->query('SELECT ms FROM told'), 9000, 10000, 'given back: told in a transaction of one statement');
	$here->query('RESET statement_timeout');
	is($here->query('SELECT ms, pid FROM told'), "0|$pid", 'given back: and then not');
	return;
}

sub rolled_back
{
	$here->query('BEGIN; SET LOCAL statement_timeout = 60000');
	between($here->query('SELECT ms FROM told'), 50000, 60000, 'rolled back: before');
	$here->query('SAVEPOINT s; SET LOCAL statement_timeout = 10000');
	between($here->query('SELECT ms FROM told'), 9000, 10000, 'rolled back: within');
	$here->query('ROLLBACK TO s');
	between($here->query('SELECT ms FROM told'), 50000, 60000, 'rolled back: behind');
	$here->query('SAVEPOINT t; SET LOCAL statement_timeout = 10000; SELECT ms FROM told; ROLLBACK TO t; COMMIT');
	is($here->query('SELECT ms FROM told'), 0, 'rolled back: after the commit');

	# first told within
	$here->query('BEGIN; SAVEPOINT s; SET LOCAL statement_timeout = 10000; SELECT ms FROM told; ROLLBACK TO s');
	is($here->query('SELECT ms FROM told'), 0, 'rolled back: its own, when first told within');
	$here->query('COMMIT');
	# told within a savepoint that stays, and then rolled back with the outer one
	$here->query('BEGIN; SAVEPOINT a; SAVEPOINT b; SET LOCAL statement_timeout = 10000; SELECT ms FROM told; RELEASE b; ROLLBACK TO a');
	is($here->query('SELECT ms FROM told'), 0, 'rolled back: with an outer one');
	$here->query('SAVEPOINT c; SET LOCAL statement_timeout = 10000; SELECT ms FROM told; RELEASE c; COMMIT');
	is($here->query('SELECT ms FROM told'), 0, 'rolled back: released, and given back at the commit');

	# what was told within is not known any more, though it would still hold
	$here->query('BEGIN; SET LOCAL statement_timeout = 10000; SAVEPOINT s; SELECT ms FROM told; ROLLBACK TO s');
	between($here->query('SELECT ms FROM told'), 9000, 10000, 'rolled back: told anew');
	$here->query('COMMIT');
	# what was told in a savepoint that was released stays when the next is rolled back
	$here->query('BEGIN; SAVEPOINT a; SET LOCAL statement_timeout = 10000; SELECT ms FROM told; RELEASE a; SAVEPOINT b; SELECT 1; ROLLBACK TO b');
	is($here->query('SET LOCAL statement_timeout = 0; SELECT ms FROM told'), 0, 'rolled back: told in one that was released');
	$here->query('COMMIT');

	# a budget that has ended, caught
	$here->query('BEGIN');
	$here->query(q{DO $$ BEGIN PERFORM epro_etl.with_timeout('50 ms', 'SELECT x FROM slow'); EXCEPTION WHEN SQLSTATE 'EP001' THEN NULL; END $$});
	is($here->query('SELECT ms FROM told'), 0, 'rolled back: with a budget that has ended');
	$here->query('COMMIT');
	is($here->query('SELECT ms FROM told'), 0, 'rolled back: after its commit');
	return;
}

# A server's own time that is shorter is its own error.
sub own_is_shorter
{
	my $began = time();

	refused($here, within('1 min', 'SELECT x FROM slow_brisk', 'text'), '57014', qr/canceling statement due to statement timeout/, 'own is shorter: its own error');
	cmp_ok(time() - $began, '<', 30, 'own is shorter: by its own time');
	is($here->query('SELECT ms, name FROM told_brisk'), '700|brisk', 'own is shorter: as it was');
	return;
}

sub cursors
{
	$here->query('BEGIN; DECLARE c CURSOR FOR SELECT ms FROM told, generate_series(1, 5)');
	is($here->query('FETCH 1 FROM c'), 0, 'cursors: before');
	between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'cursors: a budget meanwhile');
	is($here->query('FETCH 1 FROM c'), 0, 'cursors: it goes on');
	$here->query('COMMIT');

	# each FETCH is told what holds then: 200 rows lie ready of the first
	$here->query('BEGIN; SET LOCAL statement_timeout = 60000; DECLARE c CURSOR FOR SELECT n FROM many, told; FETCH 1 FROM c; SET LOCAL statement_timeout = 10000');
	$there->query('SELECT pg_stat_statements_reset()');
	$here->query('FETCH 1 FROM c');
	is($there->query(q{SELECT sum(calls) FROM pg_stat_statements WHERE query LIKE 'UPDATE pg_catalog.pg_settings%'}), 1, 'cursors: a FETCH is told');
	$here->query('COMMIT');

	# of those that a statement fetches from itself, too
	$here->query(q{CREATE FUNCTION pg_temp.one_by_one() RETURNS int LANGUAGE plpgsql AS $$
		DECLARE c CURSOR FOR SELECT ms FROM told, generate_series(1, 100); m int; last int;
		BEGIN OPEN c; FETCH c INTO m; CLOSE c; RETURN m; END $$});
	between($here->query(within('10 s', 'SELECT pg_temp.one_by_one()')), 9000, 10000, 'cursors: of a function');
	return;
}

# COPY is not told, but must not be under a budget that has ended.
sub copied
{
	$there->query('TRUNCATE heard');
	$here->query('BEGIN');
	between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'copied: a budget before');
	$here->query("COPY many FROM PROGRAM 'echo 1'");
	$here->query('COMMIT');
	is($there->query('SELECT ms FROM heard'), 0, 'copied: it is not under it');
	return;
}

sub inserted
{
	$there->query('TRUNCATE heard');
	$here->query(within('10 s', 'INSERT INTO many VALUES (0)'));
	between($there->query('SELECT ms FROM heard'), 9000, 10000, 'inserted: told');
	$there->query('TRUNCATE heard');
	$here->query(within('10 s', 'INSERT INTO parted VALUES (1), (2)'));
	is($there->query('SELECT ms FROM heard'), 0, 'inserted: into a partition: not told');
	$there->query('TRUNCATE heard');
	$here->query(within('10 s', 'UPDATE parted SET n = 1 WHERE n = 2'));
	is($there->query('SELECT ms FROM heard'), 0, 'inserted: moved into a partition: not told');
	is($here->query('SELECT ms FROM told'), 0, 'inserted: given back');
	# a server that gets no row is not asked
	$here->query(q{CREATE FOREIGN TABLE parted_gone PARTITION OF parted FOR VALUES IN (3) SERVER gone;
		CREATE FOREIGN TABLE gone_settings (name text, setting text, reset_val text) SERVER gone OPTIONS (schema_name 'pg_catalog', table_name 'pg_settings');
		INSERT INTO epro_etl.context_server VALUES ('gone', 'gone_settings')});
	$there->query('TRUNCATE heard');
	$here->query(within('10 s', 'INSERT INTO parted VALUES (1), (2)'));
	is($there->query('SELECT ms FROM heard'), 0, 'inserted: into a partition beside one that is away: not told');
	refused($here, within('10 s', 'INSERT INTO parted VALUES (3)'), '08001', qr/could not connect to server "gone"/, 'inserted: into that one');
	$here->query(q{SELECT epro_etl.remove_context_server('gone'); DROP FOREIGN TABLE parted_gone});
	between($here->query(within('10 s', 'UPDATE many SET n = t.ms FROM told t WHERE many.n = 0 RETURNING many.n')), 9000, 10000, 'inserted: updated');
	between($here->query(within('10 s', 'WITH d AS (DELETE FROM many WHERE n >= 9000 RETURNING n) SELECT ms FROM told WHERE EXISTS (SELECT FROM d)')), 9000, 10000, 'inserted: deleted in a subplan');
	is($here->query('SELECT ms FROM told'), 0, 'inserted: given back');
	return;
}

sub read_only
{
	$here->query('BEGIN READ ONLY');
	between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'read only: told');
	is($here->query('SHOW transaction_read_only'), 'on', 'read only: it stays so');
	refused($here, 'CREATE TABLE nothing ()', '25006', qr/read-only/, 'read only: for others');
	$here->query('ROLLBACK');
	$here->query('BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SET LOCAL statement_timeout = 10000');
	between($here->query('SELECT ms FROM told'), 9000, 10000, 'read only: serializable');
	$here->query('COMMIT');
	is($here->query('SELECT ms FROM told'), 0, 'read only: given back at the commit');
	return;
}

# Told is whose connection it is: a view's owner, or whoever has the public mapping.
sub whose
{
	$here->query(q{CREATE VIEW owners AS SELECT ms, pid FROM told; GRANT SELECT ON owners, told TO nobody;
		CREATE ROLE other; GRANT SELECT ON told TO other; GRANT USAGE ON SCHEMA epro_etl TO other; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO other;
		CREATE FUNCTION pids() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(DISTINCT pid::text, ',') FROM told $$});
	$here->query('BEGIN; SET LOCAL ROLE nobody');
	between($here->query(within('10 s', 'SELECT ms FROM owners')), 9000, 10000, 'whose: of a view, its owner');
	$here->query('COMMIT');
	is($here->query('SELECT ms FROM owners'), 0, 'whose: given back as its owner');

	# two roles, one connection
	$here->query('GRANT SELECT, UPDATE (setting) ON far_settings TO PUBLIC; REVOKE SELECT, UPDATE (setting) ON far_settings FROM nobody');
	$here->query(q{CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'postgres', password_required 'false')});
	$here->query('BEGIN; SET LOCAL statement_timeout = 60000; SET LOCAL ROLE nobody');
	my $pid = $here->query('SELECT pid FROM told');
	$here->query('SET LOCAL statement_timeout = 10000; SET LOCAL ROLE other');
	like($here->query('SELECT pid, ms FROM told'), qr/^$pid\|(9\d\d\d|10000)$/, 'whose: by the public mapping');
	$here->query('SET LOCAL ROLE nobody; SET LOCAL statement_timeout = 58000');
	between($here->query('SELECT ms FROM told'), 50000, 60000, 'whose: known by the connection');
	$here->query('COMMIT');

	# who may not use the table is not told, and goes on
	$here->query('REVOKE UPDATE (setting) ON far_settings FROM PUBLIC');
	$here->query('BEGIN; SET LOCAL ROLE nobody');
	is($here->query(within('10 s', 'SELECT ms FROM told')), 0, 'whose: no privilege on the table');
	$here->query('COMMIT; GRANT UPDATE (setting) ON far_settings TO PUBLIC; REVOKE USAGE ON SCHEMA "A b" FROM PUBLIC');
	$here->query('DROP USER MAPPING FOR PUBLIC SERVER far');
	return;
}

# The other server's clock may be a little ahead, so that its own timeout is the
# first to come: whose end it was is the same then. A function raises what the
# other server would, so long before the deadline.
sub clocks
{
	$here->query(q{CREATE FUNCTION ends_before(early interval) RETURNS int LANGUAGE plpgsql AS $$
		BEGIN
			WHILE clock_timestamp() < epro_etl.context_deadline() - early LOOP NULL; END LOOP;
			RAISE query_canceled USING MESSAGE = 'canceling statement due to statement timeout';
		END $$});
	my $early = q{SELECT ends_before('%s')};
	my $inner = q{SELECT x FROM epro_etl.with_timeout(%s, 'SELECT ends_before(''3 ms'')') AS t (x int)};
	my $sooner = q{epro_etl.context_deadline() - clock_timestamp() - '20 ms'};

	refused($here, within('200 ms', sprintf($early, '3 ms')), 'EP001', qr/within 00:00:00\.2$/m, 'clocks: a little early');
	refused($here, within('500 ms', sprintf($early, '450 ms')), '57014', qr/statement timeout/, 'clocks: much too early');
	refused($here, within('200 ms', sprintf($inner, q{'201 ms'})), 'EP001', qr/within 00:00:00\.2$/m, 'clocks: the outer one ends first');
	refused($here, within('201 ms', sprintf($inner, $sooner)), 'EP001', qr/within 00:00:00\.(?!201$)\d+$/m, 'clocks: the inner one ends first');
	refused($here, 'SET statement_timeout = 200; ' . within('201 ms', sprintf($early, '3 ms')), '57014', qr/statement timeout/, 'clocks: the statement ends first');
	$here->query('RESET statement_timeout');
	return;
}

sub request
{
	my $named = EproTest::Psql->new($node, name => 'gateway');

	is($named->query(q{BEGIN; SELECT epro_etl.context_set('request_id', 'r-17'); SELECT ms, name FROM told}), "\n0|gateway of r-17", 'request: in the name');
	is($named->query(q{SELECT epro_etl.context_set('request_id', 'r-18'); SELECT name FROM told}), "\ngateway of r-18", 'request: another');
	like($named->query(within('10 s', q{SELECT concat_ws('|', ms, name) FROM told}, 'text')), qr/^(9\d\d\d|10000)\|gateway of r-18$/, 'request: with a deadline');
	is($named->query(q{SELECT epro_etl.context_set('request_id', NULL); SELECT name FROM told}), "\npostgres_fdw", 'request: none any more');
	is($named->query(q{SELECT epro_etl.context_set('request_id', 'it''s "19"'); SELECT name FROM told}), qq{\ngateway of it's "19"}, 'request: with quotes');
	is($named->query(q{SET application_name = 'job of r-20'; SELECT epro_etl.context_set('request_id', 'r-20'); SELECT name FROM told}), "\njob of r-20", 'request: that the name has already');
	$named->query('COMMIT');
	is($named->query('SELECT name FROM told'), 'postgres_fdw', 'request: given back at the commit');
	$named->close;
	return;
}

# What it costs, as the page says: a statement when told, another to give back.
sub round_trips
{
	my $count = q{SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'};

	$here->query('SELECT count(*) FROM told');
	foreach my $case ([ 'a statement', 'SELECT ms FROM told', 2 ], [ 'ten in a transaction', 'BEGIN; ' . join('; ', ('SELECT ms FROM told') x 10) . '; COMMIT', 2 ])
	{
		my ($what, $sql, $more) = @$case;
		my @calls;

		foreach my $timeout (0, 60000)
		{
			$here->query("SET statement_timeout = $timeout");
			$there->query('SELECT pg_stat_statements_reset()');
			$here->query($sql);
			push @calls, $there->query($count);
		}
		note("$what: $calls[0] statements there, $calls[1] when told");
		# a statement that had lost a millisecond more than the one before is told anew
		between($calls[1] - $calls[0], $more, $more + 3, "round trips: $what");
	}
	$here->query('RESET statement_timeout');
	return;
}

# A batch's workers tell it for their sink, under a name that says which they are.
sub workers
{
	flow_anew($here, $there);
	put($here, 1, 200);
	$there->query('TRUNCATE heard');
	is($here->query(q{SET epro_etl.context = '{"request_id": "r-21", "actor": "dm"}'; SELECT status, loaded FROM epro_etl.run('flow', workers => 2, timeout => '50 s')}), 'succeeded|200', 'workers: it loads');
	sinks_ok($here, 'workers');
	between($there->query('SELECT min(ms) FROM heard'), 30000, 50000, 'workers: told, at least');
	between($there->query('SELECT max(ms) FROM heard'), 30000, 50000, 'workers: told, at most');
	is($there->query(q{SELECT DISTINCT regexp_replace(name, '\d+ worker \d', 'N worker W') FROM heard}), 'epro_etl run N worker W of r-21', 'workers: by name');

	# a server that is not registered sees the name, too
	$here->query(q{SELECT epro_etl.remove_context_server('far')});
	flow_anew($here, $there);
	put($here, 1, 100);
	$there->query('TRUNCATE heard');
	is($here->query(q{SELECT status, loaded FROM epro_etl.run('flow', workers => 1, timeout => '50 s')}), 'succeeded|100', 'workers: not registered');
	is($there->query(q{SELECT DISTINCT ms, regexp_replace(name, '\d+ worker \d', 'N worker W') FROM heard}), '0|epro_etl run N worker W of r-21', 'workers: known from connecting on');
	$there->query('TRUNCATE heard');
	$here->query(q{SET postgres_fdw.application_name = 'chosen %p'});
	flow_anew($here, $there);
	put($here, 1, 100);
	$here->query(q{SELECT status, loaded FROM epro_etl.run('flow', workers => 1)});
	like($there->query('SELECT DISTINCT name FROM heard'), qr/^chosen \d+$/, 'workers: unless somebody has chosen a name');
	$here->query('RESET postgres_fdw.application_name');
	is($here->query(q{SELECT epro_etl.add_context_server('far')}), 'far_settings', 'workers: registered again');

	# ended by the run's timeout, while the other server is slow
	foreach my $workers (0, 1)
	{
		my $what = "workers: a slow insert, $workers workers";

		flow_anew($here, $there);
		$there->query('INSERT INTO at_insert SELECT generate_series(0, 10); SELECT pg_advisory_lock(80, g) FROM generate_series(0, 10) g');
		put($here, 1, 100);
		refused($here, "SELECT epro_etl.run('flow', workers => $workers, timeout => '300 ms')", 'EP001', qr/deadline exceeded/, $what);
		idle_there($what);
		$there->query('SELECT pg_advisory_unlock_all()');
		is($here->query('SELECT count(*) FROM staging'), 100, "$what: all is staged");
		# not one that only a savepoint here has told
		is($here->query('SELECT ms FROM told'), 0, "$what: its own again");
	}

	# the log says whose run has failed
	flow_anew($here, $there);
	put($here, 1, 10);
	my $offset = -s $node->logfile;
	$far->stop('fast');
	$here->try(q{SELECT epro_etl.run('flow', workers => 1)});
	$far->start;
	$there = far_session($far);
	like(log_since($node, $offset), qr/epro_etl worker 1 of run \d+ failed with SQLSTATE 08...\n.*CONTEXT:  request_id r-21, actor dm\n/, 'workers: the log has the request');
	$here->query('RESET epro_etl.context');
	# who lost the connection finds it anew
	$here->try('SELECT ms FROM told');
	return;
}

# What ends it here ends it there, at once, with the SQLSTATE of what it was.
sub ends
{
	my %ways = (
		'with_timeout' => [ within('100 ms', 'SELECT x FROM slow', 'text'), 'EP001' ],
		'statement_timeout' => [ q{SET statement_timeout = 100; SELECT x FROM slow}, '57014' ],
		'statement_timeout within with_timeout' => [ 'SET statement_timeout = 100; ' . within('1 min', 'SELECT x FROM slow', 'text'), '57014' ],
		'with_timeout within statement_timeout' => [ 'SET statement_timeout = 60000; ' . within('100 ms', 'SELECT x FROM slow', 'text'), 'EP001' ],
		'cancel' => [ 'SELECT x FROM slow', '57014', 'pg_cancel_backend' ],
		'cancel within with_timeout' => [ within('1 min', 'SELECT x FROM slow', 'text'), '57014', 'pg_cancel_backend' ],
		'terminate' => [ within('1 min', 'SELECT x FROM slow', 'text'), '57P01', 'pg_terminate_backend' ],
	);
	my $look = reach($node);

	foreach my $way (sort keys %ways)
	{
		my ($sql, $sqlstate, $by) = @{ $ways{$way} };
		my $session = EproTest::Psql->new($node);

		$session->send($sql);
		if ($by)
		{
			ok(slow_there(), "ends: $way: it goes on there");
			$look->query("SELECT $by(" . $session->backend . ')');
		}
		my (undef, $error) = $session->wait;
		$by && $by eq 'pg_terminate_backend'
		  ? ok(until_true($there, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 0), "ends: $way: it is gone there")
		  : idle_there("ends: $way");
		is(sqlstate($error), $sqlstate, "ends: $way: SQLSTATE");
		is($session->query('RESET statement_timeout; SELECT ms FROM told'), 0, "ends: $way: the session goes on") if $sqlstate ne '57P01';
		$session->close;
	}

	# in a transaction, which goes on
	$here->query('BEGIN; INSERT INTO changed VALUES (1)');
	is($here->query(q{DO $$ BEGIN PERFORM epro_etl.with_timeout('100 ms', 'SELECT x FROM slow'); EXCEPTION WHEN SQLSTATE 'EP001' THEN NULL; END $$; SELECT ms FROM told}), 0, 'ends: caught');
	idle_there('ends: caught');
	$here->query('COMMIT');
	is($here->query('SELECT count(*) FROM changed'), 1, 'ends: the transaction around it is committed');

	# in a connection that is there already, again and again
	$here->query('BEGIN; SELECT ms FROM told');
	foreach my $n (1 .. 5)
	{
		refused($here, within('60 ms', 'SELECT x FROM slow', 'text') . '; ROLLBACK; BEGIN', 'EP001', qr/deadline exceeded/, "ends: try $n");
	}
	$here->query('ROLLBACK');
	$look->close;
	return;
}

# Nobody is left here to end it, and the other server learns nothing of that.
sub killed
{
	my $session = EproTest::Psql->new($node);
	my $offset = -s $far->logfile;
	my $began = time();

	$session->send(within('3 s', 'SELECT x FROM slow', 'text'));
	ok(slow_there(), 'killed: it goes on there');
	kill 'KILL', $session->backend;
	$session->wait;
	$_->close foreach ($session, $here);
	await_back($node);
	$here = reach($node);
	is($there->query(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}), 1, 'killed: it still goes on there') if time() - $began < 2.5;
	ok(until_true($there, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 0), 'killed: then it ends');
	cmp_ok(time() - $began, '<', 20, 'killed: when its time is over');
	ok(until_true($there, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()}, 0), 'killed: and its session is gone');
	like(log_since($far, $offset), qr/canceling statement due to statement timeout/, 'killed: by its own statement_timeout');
	return;
}

sub down
{
	$here->query('SELECT ms FROM told');
	$there->close;
	$far->stop('fast');
	my (undef, $error) = $here->try(within('10 s', 'SELECT ms FROM told'));
	like(sqlstate($error), qr/^08...$/, 'down: the error is the connection\'s');
	unlike($error, qr/EP001|deadline/, 'down: and not ours');
	$far->start;
	$there = far_session($far);
	between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'down: then it is told again');
	return;
}

# Whatever becomes of the table: the server is not told any more, and that is all.
sub dangling
{
	my @others = (
		[ 'dropped', 'DROP FOREIGN TABLE far_settings' ],
		[ 'another column', 'ALTER FOREIGN TABLE far_settings ADD COLUMN more text' ],
		[ 'another type', 'ALTER FOREIGN TABLE far_settings ALTER setting TYPE varchar' ],
		[ 'a column elsewhere', q{ALTER FOREIGN TABLE far_settings ALTER setting OPTIONS (column_name 'name')} ],
		[ 'another table there', q{ALTER FOREIGN TABLE far_settings OPTIONS (SET table_name 'many')} ],
		[ 'another schema there', q{ALTER FOREIGN TABLE far_settings OPTIONS (DROP schema_name)} ],
		[ 'a trigger', 'CREATE TRIGGER t BEFORE UPDATE ON far_settings FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()' ],
		[ 'another server', 'DROP FOREIGN TABLE far_settings; CREATE FOREIGN TABLE far_settings (name text, setting text, reset_val text) SERVER brisk OPTIONS (schema_name \'pg_catalog\', table_name \'pg_settings\'); UPDATE epro_etl.context_server SET settings = \'far_settings\' WHERE server = \'far\'' ],
	);

	between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'dangling: before');
	foreach my $other (@others)
	{
		my ($name, $sql) = @$other;

		$here->query($sql);
		is($here->query(within('10 s', 'SELECT ms FROM told')), 0, "dangling: $name: not told");
		$here->query('DROP FOREIGN TABLE IF EXISTS far_settings');
		is($here->query(q{SELECT epro_etl.add_context_server('far')}), 'far_settings', "dangling: $name: registered anew");
		between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, "dangling: $name: told again");
	}
	# a server of another name is the same
	$here->query('ALTER SERVER far RENAME TO farther');
	between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'dangling: renamed: told');
	$here->query(q{SELECT epro_etl.remove_context_server('farther')});
	is($here->query(q{SELECT to_regclass('far_settings') IS NULL, (SELECT count(*) FROM epro_etl.context_server)}), 't|1', 'dangling: renamed: removed');
	$here->query('ALTER SERVER farther RENAME TO far');
	is($here->query(within('10 s', 'SELECT ms FROM told')), 0, 'dangling: removed: not told');
	refused($here, q{SELECT epro_etl.remove_context_server('far')}, '42704', qr/not one that is told/, 'dangling: removed twice');

	# all of it, at a stroke
	$here->query('DROP SERVER brisk CASCADE');
	is($here->query('SELECT ms FROM told'), 0, 'dangling: a server that is gone');
	is($here->query(q{SELECT epro_etl.remove_context_server('brisk'); SELECT count(*) FROM epro_etl.context_server}), "\n0", 'dangling: a server that is gone is removed');
	is($here->query(q{SELECT epro_etl.add_context_server('far')}), 'far_settings', 'dangling: registered again');
	return;
}

# What cannot be given back must not be kept.
sub dropped_meanwhile
{
	$here->query('BEGIN; SET LOCAL statement_timeout = 10000; SELECT ms FROM told; DROP FOREIGN TABLE far_settings');
	refused($here, 'COMMIT', '55000', qr/server "far" has a deadline.*HINT/s, 'dropped meanwhile');
	is($here->query('SELECT ms FROM told'), 0, 'dropped meanwhile: its own');
	between($here->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'dropped meanwhile: it is there still');
	# so is a connection that cannot be found any more
	$here->query(q{CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'postgres', password_required 'false')});
	$here->query('BEGIN; SET LOCAL ROLE nobody; SET LOCAL statement_timeout = 10000; SELECT ms FROM told; RESET ROLE; CREATE USER MAPPING FOR nobody SERVER far');
	refused($here, 'COMMIT', '55000', qr/server "far" has a deadline.*HINT/s, 'dropped meanwhile: another user mapping');
	# with the mapping, or the server, goes the connection
	$here->query('BEGIN; SET LOCAL ROLE nobody; SET LOCAL statement_timeout = 10000; SELECT ms FROM told; RESET ROLE; DROP USER MAPPING FOR PUBLIC SERVER far; COMMIT');
	$here->query(q{CREATE SERVER short FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '} . "$host', port '$port', dbname 'postgres'); CREATE USER MAPPING FOR CURRENT_USER SERVER short OPTIONS (user 'postgres')");
	$here->query(q{SELECT epro_etl.add_context_server('short')});
	$here->query(q{BEGIN; SET LOCAL statement_timeout = 10000; SELECT count(*) FROM short_settings; DROP SERVER short CASCADE; COMMIT});
	is($here->query(q{SELECT epro_etl.remove_context_server('short'); SELECT count(*) FROM epro_etl.context_server}), "\n1", 'dropped meanwhile: with its server');
	# an extension that is dropped tells nobody
	$here->query('BEGIN; DROP EXTENSION epro_etl CASCADE; SET LOCAL statement_timeout = 10000');
	is($here->query('SELECT ms FROM told'), 0, 'dropped meanwhile: the extension');
	$here->query('ROLLBACK');
	return;
}

sub dumped
{
	my $file = $node->basedir . '/dump.sql';

	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $file ], 'dumped');
	$node->safe_psql('postgres', 'CREATE DATABASE copy');
	$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $file, '-o', $node->basedir . '/restore.out' ], 'dumped: restored');
	my $copy = EproTest::Psql->new($node, dbname => 'copy');
	is($copy->query('SELECT server, settings FROM epro_etl.context_server'), 'far|far_settings', 'dumped: registered');
	between($copy->query(within('10 s', 'SELECT ms FROM told')), 9000, 10000, 'dumped: told');
	$copy->close;
	return;
}
