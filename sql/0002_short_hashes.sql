-- Schema version 2. Of most events only the first four bytes of the hash are stored from here on:
-- hash is whole (32 bytes) where cursor is a multiple of 16, and wherever schema 1 wrote it.
UPDATE meta SET value=value WHERE key='epoch';
