-- Schema version 5. Of an idkey only the first twelve bytes are stored from here on; all sixteen are
-- where earlier versions wrote it.
UPDATE meta SET value=value WHERE key='epoch';
