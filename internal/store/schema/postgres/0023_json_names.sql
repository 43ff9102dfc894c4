-- +goose Up

-- Members of stored JSON get the names that the API uses. Quotes in a JSON
-- string are escaped, so these patterns match names of members only.
UPDATE conversation_event SET data = replace(data, '"cut":true', '"truncated":true') WHERE kind = 'content_delta';
UPDATE setting SET value = replace(replace(value, '"trouble":', '"problem":'), '"last_took_ms":', '"last_duration_ms":') WHERE key = 'backup';
