// JSON.parse's verdict on each text: the file holds a JSON array of base64 strings.
// Bytes that are not UTF-8 are refused first, as RFC 8259 8.1 has it; a byte order mark is kept,
// so that JSON.parse sees it.
'use strict';
const fs = require('fs');
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const texts = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
for (const text of texts) {
    let verdict = 'ok';
    try {
        JSON.parse(utf8.decode(Buffer.from(text, 'base64')));
    } catch (e) {
        verdict = 'refused';
    }
    console.log(verdict);
}
