// Runs all tests of this folder, or those of the file named, and at the end holds what was seen
// against the description.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const { after } = require('node:test');
const assert = require('node:assert/strict');
const api = require('./api.js');

const only = process.argv[2];
const files = fs.readdirSync(__dirname).filter((f) => f.endsWith('.test.js') && (!only || f.startsWith(`${only}.`)));
if (!files.length) throw new Error(`no tests in ${only}`);
for (const f of files.sort()) require(path.join(__dirname, f));

after(() => {
  if (only) return;
  assert.deepEqual(api.unseen(), [], 'described in admin/openapi.yaml, but never answered');
});
