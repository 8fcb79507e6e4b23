--
-- forms.sql: the two forms of the demo, and the rules about them.
--
-- A form is a JSON Schema. "x-normalise" says which ways of writing are the
-- same answer: 3, "3", " 3 ", "3.0" and a full-width three; "mild" and "MILD".
--

SELECT epro_etl.register_form('MOOD', version => '1.0', definition => '{
    "title": "Mood in the last two weeks: nine questions, 0 not at all .. 3 nearly every day",
    "type": "object",
    "x-normalise": ["trim", "width", "coerce", "fold", "blank"],
    "required": ["instrument", "mood1", "mood2", "mood3", "mood4", "mood5", "mood6", "mood7", "mood8", "mood9"],
    "properties": {
        "name":       {"type": "string"},
        "email":      {"type": "string"},
        "phone":      {"type": "string"},
        "born":       {"type": "string", "format": "date"},
        "instrument": {"type": "string", "const": "MOOD-9"},
        "mood1":      {"type": "integer", "minimum": 0, "maximum": 3},
        "mood2":      {"type": "integer", "minimum": 0, "maximum": 3},
        "mood3":      {"type": "integer", "minimum": 0, "maximum": 3},
        "mood4":      {"type": "integer", "minimum": 0, "maximum": 3},
        "mood5":      {"type": "integer", "minimum": 0, "maximum": 3},
        "mood6":      {"type": "integer", "minimum": 0, "maximum": 3},
        "mood7":      {"type": "integer", "minimum": 0, "maximum": 3},
        "mood8":      {"type": "integer", "minimum": 0, "maximum": 3},
        "mood9":      {"type": "integer", "minimum": 0, "maximum": 3},
        "total":      {"type": "integer", "minimum": 0, "maximum": 27},
        "completed":  {"type": "string", "format": "date-time"}
    }}');

SELECT epro_etl.register_form('DIARY', version => '1.0', definition => '{
    "title": "Pain diary, once a day",
    "type": "object",
    "x-normalise": ["trim", "width", "coerce", "fold", "blank"],
    "required": ["pain", "severity"],
    "properties": {
        "pain":        {"type": "integer", "minimum": 0, "maximum": 10},
        "severity":    {"type": "string", "enum": ["MILD", "MODERATE", "SEVERE"]},
        "onset":       {"type": "string", "format": "date"},
        "sleep_hours": {"type": "number", "minimum": 0, "exclusiveMaximum": 24},
        "medication":  {"type": "boolean"},
        "dose_mg":     {"type": "number", "exclusiveMinimum": 0},
        "tablets":     {"type": "integer", "minimum": 0, "maximum": 20},
        "taken_at":    {"type": "string", "format": "time"},
        "kit":         {"type": "string", "pattern": "^KIT-[0-9]{5}$"},
        "activity":    {"type": "string", "minLength": 3, "maxLength": 12},
        "note":        {"type": "string"},
        "caregiver":   {"type": "object", "properties": {
            "name":    {"type": "string"},
            "phone":   {"type": "string"}}}
    }}');

-- De-identification. It comes before everything else, so the checks below see
-- an age in the place of the date of birth. A removed item gets no column.
SELECT epro_etl.set_deid('MOOD', '/name', 'remove');
SELECT epro_etl.set_deid('MOOD', '/email', 'remove');
SELECT epro_etl.set_deid('MOOD', '/phone', 'remove');
SELECT epro_etl.set_deid('MOOD', '/born', 'generalize', '{"to": "age"}');
SELECT epro_etl.set_deid('DIARY', '/note', 'redact');
SELECT epro_etl.set_deid('DIARY', '/caregiver', 'remove');

-- Edit checks: an error rejects the response, a warning or an information is
-- recorded about a response that is loaded.
SELECT epro_etl.add_edit_check('MOOD', 'sum',
    'mood1 + mood2 + mood3 + mood4 + mood5 + mood6 + mood7 + mood8 + mood9 = total',
    message => 'the total is not the sum of the nine answers');
SELECT epro_etl.add_edit_check('MOOD', 'adult', 'born >= 18', 'warning',
    message => 'the subject was under age');
SELECT epro_etl.add_edit_check('MOOD', 'straight_line',
    'NOT (mood1 > 0 AND mood1 = ALL (ARRAY[mood2, mood3, mood4, mood5, mood6, mood7, mood8, mood9]))', 'information',
    message => 'all nine answers are the same');

SELECT epro_etl.add_edit_check('DIARY', 'onset_past',
    $$onset <= (authored AT TIME ZONE 'UTC')::date$$,
    message => 'the pain began after the day of the diary');
SELECT epro_etl.add_edit_check('DIARY', 'strength',
    'dose_mg / tablets BETWEEN 100 AND 500', condition => 'medication',
    message => 'there is no tablet of that strength');
SELECT epro_etl.add_edit_check('DIARY', 'mild_pain',
    $$NOT (severity = 'MILD' AND pain >= 7)$$, 'warning',
    message => 'strong pain was called mild');
SELECT epro_etl.add_edit_check('DIARY', 'long_sleep', 'sleep_hours <= 12', 'information',
    message => 'more than twelve hours of sleep');
