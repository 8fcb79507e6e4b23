-- One load (with :workers workers) against the one in the calling transaction:
-- all must be equal, but for the number of the run and the time.
\set VERBOSITY terse
\set SHOW_CONTEXT never
\set schema w:workers
SET search_path = pilot;
\set is 'workers ' :workers ' and 0: '

SELECT same(:'is' || 'equal contents of the sinks',
    format('SELECT split_part(sink, ''.'', 2), source_id, study, subject_key, form, form_version, visit, authored, items FROM %I.arrived', :'schema'),
    'SELECT split_part(sink, ''.'', 2), source_id, study, subject_key, form, form_version, visit, authored, items FROM w0.arrived');
SELECT same(:'is' || 'equal findings',
    format('SELECT source_id, form, location, rule, kind, severity, message FROM %I.found', :'schema'),
    'SELECT source_id, form, location, rule, kind, severity, message FROM w0.found');
SELECT same(:'is' || 'equal quarantine',
    format('SELECT source_id, form, original, tries FROM %I.held', :'schema'),
    'SELECT source_id, form, original, tries FROM w0.held');
