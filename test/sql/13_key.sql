-- The key: no run without one that is fit; what is wrong is told without its path or content.
-- (A program that reads nothing is given nothing: a line for it could break the pipe.)
\set SHOW_CONTEXT never
SELECT probe.open_area('t13');
SELECT epro_etl.register_form('t13', '{"properties": {"a": {"type": "integer"}}}');
SELECT epro_etl.create_sink('t13', 't13', 'loaded');
SELECT probe.put('t13', '{"a": 1}');
SET epro_etl.key_file = '';
SELECT epro_etl.run('t13', workers => 0);
SET epro_etl.key_file = '/nonexistent/SECRETPATH';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT WHERE false) TO PROGRAM 'umask 077; : > ../epro_etl_regress_bad.key';
SET epro_etl.key_file = '../epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT 'fifteen bytes..') TO PROGRAM 'umask 077; cat > ../epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT repeat('x', 4096)) TO PROGRAM 'umask 077; cat > ../epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT repeat('x', 32)) TO PROGRAM 'cat > ../epro_etl_regress_bad.key; chmod 640 ../epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT repeat('x', 32)) TO PROGRAM 'cat > ../epro_etl_regress_bad.key; chmod 604 ../epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT WHERE false) TO PROGRAM 'rm ../epro_etl_regress_bad.key; ln -s epro_etl_regress.key ../epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT WHERE false) TO PROGRAM 'rm ../epro_etl_regress_bad.key; mkfifo -m 600 ../epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT WHERE false) TO PROGRAM 'rm ../epro_etl_regress_bad.key';
SET epro_etl.key_file = '.';
SELECT epro_etl.run('t13', workers => 0);
SET epro_etl.key_file = '/dev/zero';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT repeat('x', 10000000)) TO PROGRAM 'umask 077; cat > ../epro_etl_regress_bad.key';
SET epro_etl.key_file = '../epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT WHERE false) TO PROGRAM 'rm ../epro_etl_regress_bad.key';
-- not where a backup would take it along, whatever the way to it
COPY (SELECT 'a key for tests, known to everybody') TO PROGRAM 'umask 077; cat > epro_etl_regress_bad.key';
SET epro_etl.key_file = 'epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT WHERE false) TO PROGRAM 'ln -s "$PWD" ../epro_etl_regress_bad';
SET epro_etl.key_file = '../epro_etl_regress_bad/epro_etl_regress_bad.key';
SELECT epro_etl.run('t13', workers => 0);
COPY (SELECT WHERE false) TO PROGRAM 'rm epro_etl_regress_bad.key ../epro_etl_regress_bad';
-- a setting of the session is the workers' as well
\set VERBOSITY sqlstate
SELECT epro_etl.run('t13', workers => 1);
\set VERBOSITY default
SELECT status, sqlstate, message FROM epro_etl.run_history WHERE pipeline = 't13' ORDER BY run_id DESC LIMIT 1;
RESET epro_etl.key_file;
SELECT count(*) AS still_staged FROM staging;
SELECT status, loaded FROM epro_etl.run('t13', workers => 1);
-- another key is refused, by workers too; the last line feeds are not part of one
SELECT probe.put('t13', '{"a": 2}');
COPY (SELECT repeat('y', 16)) TO PROGRAM 'umask 077; cat > ../epro_etl_regress_bad.key';
SET epro_etl.key_file = '../epro_etl_regress_bad.key';
SELECT status, loaded FROM epro_etl.run('t13', workers => 0);
\set VERBOSITY sqlstate
SELECT status, loaded FROM epro_etl.run('t13', workers => 1);
\set VERBOSITY default
COPY (VALUES ('a key for tests, known to everybody'), (''), ('')) TO PROGRAM 'umask 077; cat > ../epro_etl_regress_bad.key';
SELECT status, loaded FROM epro_etl.run('t13', workers => 0);
COPY (SELECT WHERE false) TO PROGRAM 'rm ../epro_etl_regress_bad.key';
-- or what a command prints: one source, that ends well, and prints neither nothing nor too much
SELECT probe.put('t13', '{"a": 3}');
SET epro_etl.key_command = 'cat ../epro_etl_regress.key';
SELECT status, loaded FROM epro_etl.run('t13', workers => 0);
SET epro_etl.key_file = '';
SET epro_etl.key_command = 'true';
SELECT status, loaded FROM epro_etl.run('t13', workers => 0);
SET epro_etl.key_command = 'cat ../epro_etl_regress.key; exit 3';
SELECT status, loaded FROM epro_etl.run('t13', workers => 0);
SET epro_etl.key_command = 'cat /dev/zero';
SELECT status, loaded FROM epro_etl.run('t13', workers => 0);
SET epro_etl.key_command = 'echo fifteen bytes..';
SELECT status, loaded FROM epro_etl.run('t13', workers => 0);
SET epro_etl.key_command = 'cat ../epro_etl_regress.key';
SELECT status, loaded FROM epro_etl.run('t13', workers => 1);
RESET epro_etl.key_command;
RESET epro_etl.key_file;
SELECT a, key_version, subject_key = probe.subject_key('ST01', 'P-1') AS as_computed FROM loaded ORDER BY a;
SELECT probe.close_area('t13');
