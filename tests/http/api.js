// admin/openapi.yaml as a judge: holds answers against it and remembers what has been seen.
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const Ajv = require('ajv/dist/2020');
const YAML = require('yaml');

const text = fs.readFileSync(path.join(__dirname, '../../admin/openapi.yaml'), 'utf8');
const doc = YAML.parse(text);
const ajv = new Ajv({ strict: false, allErrors: true });
ajv.addSchema(doc, 'api');
const validators = new Map();
const METHODS = ['get', 'put', 'post', 'delete'];

const operations = [];
for (const [template, item] of Object.entries(doc.paths)) {
  const where = item.servers ? ['public'] : /^\/(live|ready|health)$/.test(template) ? ['admin', 'public'] : ['admin'];
  const pattern = new RegExp(`^${template.replace(/[.]/g, '\\.').replace(/\{[^}]+\}/g, '[^/]+')}$`);
  for (const method of METHODS) {
    if (item[method]) operations.push({ template, method, where, pattern, op: item[method], item });
  }
}

const seen = new Set();

function pointer(...parts) {
  return parts.map((p) => p.replace(/~/g, '~0').replace(/\//g, '~1')).map(encodeURIComponent).join('/');
}

function validator(ref) {
  if (!validators.has(ref)) validators.set(ref, ajv.compile({ $ref: `api#/${ref}` }));
  return validators.get(ref);
}

function resolve(node, at) {
  return node.$ref ? { node: node.$ref.slice(2).split('/').reduce((o, k) => o[k], doc), at: node.$ref.slice(2) } : { node, at };
}

function find(where, method, target) {
  const url = target.split('?')[0];
  return operations.find((o) => o.where.includes(where) && o.method === method.toLowerCase() && o.pattern.test(url));
}

// Throws when the answer is not one that the description allows.
function check(where, method, target, answer) {
  const o = find(where, method, target);
  const type = (answer.headers['content-type'] || '').split(';')[0];
  if (!o) {
    assert.ok(answer.status >= 400, `${method} ${target} is not described, and answered ${answer.status}`);
    checkProblem(answer, type);
    return;
  }
  const told = `${method} ${target} -> ${answer.status} ${type}: ${answer.text.slice(0, 300)}`;
  const status = o.op.responses[answer.status] ? String(answer.status) : 'default';
  assert.ok(status !== 'default' || answer.status >= 400, `not described: ${told}`);
  seen.add(`${o.method} ${o.template} ${status}`);
  const { node, at } = resolve(o.op.responses[status], pointer('paths', o.template, o.method, 'responses', status));
  for (const [name, h] of Object.entries(node.headers || {})) {
    const value = answer.headers[name.toLowerCase()];
    assert.ok(!h.required || value !== undefined, `${name} is missing: ${told}`);
    if (value !== undefined) assert.ok(ajv.validate(h.schema, value), `${name}: ${value}: ${told}`);
  }
  if (!node.content) {
    assert.equal(answer.text, '', told);
    return;
  }
  assert.ok(node.content[type], `this type is not described: ${told}`);
  if (/[/+]json$/.test(type)) {
    const v = validator(`${at}/content/${pointer(type)}/schema`);
    assert.ok(v(answer.json), `${ajv.errorsText(v.errors)}: ${told}`);
  }
  if (answer.status >= 400 && type === 'application/problem+json') checkProblem(answer, type);
}

function checkProblem(answer, type) {
  const told = `${answer.status} ${type} ${answer.text.slice(0, 300)}`;
  assert.equal(type, 'application/problem+json', told);
  const v = validator('components/schemas/Problem');
  assert.ok(v(answer.json), `${ajv.errorsText(v.errors)}: ${told}`);
  assert.equal(answer.json.status, answer.status, told);
  assert.equal(answer.status === 401, answer.headers['www-authenticate'] !== undefined && answer.json.code !== 'insufficient_scope', told);
}

// What of the description no answer has shown. Statuses that need a broken machine are left out.
function unseen() {
  const all = [];
  for (const o of operations) {
    for (const status of Object.keys(o.op.responses)) {
      if (status !== 'default') all.push(`${o.method} ${o.template} ${status}`);
    }
  }
  return all.filter((k) => !seen.has(k));
}

module.exports = { doc, operations, check, unseen, METHODS };
