-- Rows are written past the executor: each of them is in each index of the sink, also
-- where a chunk has several slices of them, and where some of a chunk are refused.
\set SHOW_CONTEXT never
CREATE EXTENSION amcheck;
SELECT probe.open_area('t41');
SELECT epro_etl.register_form('t41', '{"properties": {"n": {"type": "integer"}, "word": {"type": "string"}, "tags": {"type": "array"}}}');
CREATE TABLE words (source_id int PRIMARY KEY, n int UNIQUE, word text, tags jsonb, run_id bigint);
CREATE INDEX by_length ON words (length(word), n DESC) INCLUDE (word);
CREATE INDEX of_some ON words (n) WHERE n % 3 = 0;
CREATE INDEX by_twice ON words ((n * 2));
CREATE INDEX by_hash ON words USING hash (word);
CREATE INDEX by_tag ON words USING gin (tags);
CREATE INDEX by_range ON words USING brin (source_id) WITH (pages_per_range = 1);
SELECT epro_etl.add_sink('t41', 't41', 'words');
-- what an index finds, and what the table has
CREATE FUNCTION found() RETURNS TABLE (way text, by_key bigint, by_length bigint, of_some bigint, by_twice bigint, by_hash bigint, by_tag bigint, by_range bigint)
LANGUAGE plpgsql AS $$
DECLARE
    indexed boolean;
BEGIN
    FOREACH indexed IN ARRAY ARRAY[true, false] LOOP
        PERFORM set_config('enable_seqscan', (NOT indexed)::text, true), set_config('enable_indexscan', indexed::text, true),
            set_config('enable_bitmapscan', indexed::text, true), set_config('enable_indexonlyscan', indexed::text, true);
        RETURN QUERY SELECT CASE WHEN indexed THEN 'indexes' ELSE 'table' END,
            (SELECT count(*) FROM words w WHERE w.source_id > 0), (SELECT count(*) FROM words w WHERE length(w.word) > 0),
            (SELECT count(*) FROM words w WHERE w.n % 3 = 0), (SELECT count(*) FROM words w WHERE w.n * 2 > 0),
            (SELECT count(*) FROM words w WHERE w.word = 'even'), (SELECT count(*) FROM words w WHERE w.tags ? 'five'),
            (SELECT count(*) FROM words w WHERE w.source_id BETWEEN 250 AND 1250);
    END LOOP;
END $$;
CREATE FUNCTION stage(first int, last int, bad int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO staging SELECT i, 'ST01', 't41', 'P-1', 'V1', now(), jsonb_build_object('n', CASE WHEN i % bad = 0 THEN 1 ELSE i END,
        'word', CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd ' || i END, 'tags', CASE WHEN i % 5 = 0 THEN '["five"]'::jsonb ELSE '[]' END)
    FROM generate_series(first, last) i $$;
-- four slices, the last of one row, in one chunk; then with rows that a key refuses, in this session and in workers
SET epro_etl.batch_size = 751;
SELECT stage(1, 751, 1000000);
SELECT status, claimed, loaded, rejected FROM epro_etl.run('t41', workers => 0);
SELECT * FROM found();
SELECT stage(1001, 1751, 250);
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t41', workers => 0);
SELECT stage(2001, 4000, 7);
SELECT status, claimed, loaded, rejected, duplicate FROM epro_etl.run('t41', workers => 2);
SELECT * FROM found();
SELECT indexrelid::regclass AS index, bt_index_check(indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE indrelid = 'words'::regclass AND amname = 'btree' ORDER BY 1::text;
SELECT count(bt_index_check(indexrelid, true)::text) > 30 AS all_hold FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE c.relnamespace = 'epro_etl'::regnamespace AND c.relkind = 'r';
RESET epro_etl.batch_size;
SELECT probe.close_area('t41');
DROP EXTENSION amcheck;
