// Tokens of npm's jose for us, and ours for jose: interop.mjs PROGRAM (tests/unit/jose/tokens.c).
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import * as jose from 'jose';

const program = path.resolve(process.argv[2]);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ebbgate-jose-'));
const run = (args, input = '') => execFileSync(program, args, { input, encoding: 'utf8' });
const now = Math.floor(Date.now() / 1000);
let checked = 0;

try {
    await theirsForUs(path.join(folder, 'theirs'));
    await oursForThem(path.join(folder, 'ours'));
    console.log(`passed: ${checked} tokens`);
} finally {
    fs.rmSync(folder, { recursive: true });
}

async function theirsForUs(keys) {
    fs.mkdirSync(keys, { mode: 0o700 });
    const pair = await jose.generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
    const jwk = await jose.exportJWK(pair.privateKey);
    jwk.kid = await jose.calculateJwkThumbprint(jwk);
    fs.writeFileSync(path.join(keys, '1.key'), JSON.stringify(jwk), { mode: 0o600 });
    const other = await jose.generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
    const es = await jose.generateKeyPair('ES256');
    const rs = await jose.generateKeyPair('RS256');
    const ed448 = await jose.generateKeyPair('EdDSA', { crv: 'Ed448' });
    const shared = jose.base64url.decode(jwk.x);

    const claims = { scope: 'read write', agents: ['*'] };
    const make = (change = {}, header = {}, extra = {}) => {
        const t = new jose.SignJWT({ ...claims, ...extra })
            .setProtectedHeader({ alg: 'EdDSA', typ: 'JWT', kid: jwk.kid, ...header })
            .setSubject('ann').setJti('j1').setIssuedAt(now).setExpirationTime(now + 600)
            .setAudience('here');
        for (const [name, value] of Object.entries(change)) t[name](value);
        return t;
    };
    const good = await make().sign(pair.privateKey);
    const [head, body, signature] = good.split('.');
    const encode = (value) => jose.base64url.encode(JSON.stringify(value));

    const rows = [
        ['ok ann', good],
        ['ok ann', await make({}, { typ: undefined }).sign(pair.privateKey)],
        ['ok ann', await make({}, { kid: undefined }).sign(pair.privateKey)],
        ['ok bob \u{1f600}', await make({ setSubject: 'bob \u{1f600}' }).sign(pair.privateKey)],
        ['ok ann', await make({ setAudience: ['x', 'here'] }).sign(pair.privateKey)],
        ['ok ann', await make({ setNotBefore: now }).sign(pair.privateKey)],
        ['ok ann', await make({ setExpirationTime: now - 30 }, {}, {})
            .setIssuedAt(now - 600).sign(pair.privateKey)],
        ['denied expired', await make({ setExpirationTime: now - 120 })
            .setIssuedAt(now - 600).sign(pair.privateKey)],
        ['denied not valid yet (nbf)', await make({ setNotBefore: now + 300 })
            .sign(pair.privateKey)],
        ['denied issued in the future (iat)', await make({ setIssuedAt: now + 300 })
            .sign(pair.privateKey)],
        ['denied lifetime is longer than allowed', await make({ setExpirationTime: now + 90000 })
            .sign(pair.privateKey)],
        ['denied made for another audience', await make({ setAudience: 'there' })
            .sign(pair.privateKey)],
        ['denied the signature does not match', await make().sign(other.privateKey)],
        ['denied unknown key (kid)', await make({}, { kid: 'x' }).sign(pair.privateKey)],
        ['denied the signature is not 64 bytes of base64url', await make()
            .sign(ed448.privateKey)],
        ['denied alg is not EdDSA', await make({}, { alg: 'ES256' }).sign(es.privateKey)],
        ['denied alg is not EdDSA', await make({}, { alg: 'RS256' }).sign(rs.privateKey)],
        ['denied alg is not EdDSA', await make({}, { alg: 'HS256' }).sign(shared)],
        ['denied not three parts', new jose.UnsecuredJWT({ ...claims, sub: 'ann', jti: 'j' })
            .setExpirationTime(now + 60).encode()],
        ['denied the header has critical extensions (crit)', await make({},
            { crit: ['x'], x: 1 }).sign(pair.privateKey, { crit: { x: true } })],
        ['denied the signature does not match', [head, encode({ sub: 'eve' }), signature].join('.')],
        ['denied alg is not EdDSA', [encode({ alg: 'none' }), body, signature].join('.')],
        ['denied not three parts', await new jose.CompactEncrypt(new TextEncoder().encode('{}'))
            .setProtectedHeader({ alg: 'dir', enc: 'A128CBC-HS256' }).encrypt(shared)],
    ];
    const told = run(['verify', keys, 'here'], rows.map((r) => r[1]).join('\n') + '\n')
        .trimEnd().split('\n');
    assert.equal(told.length, rows.length);
    rows.forEach(([want], i) => assert.equal(told[i], want, `token ${i}`));
    checked += rows.length;
    assert.deepEqual(JSON.parse(run(['jwks', keys])).keys[0],
        { kty: 'OKP', crv: 'Ed25519', kid: jwk.kid, x: jwk.x, use: 'sig', alg: 'EdDSA' });
}

async function oursForThem(keys) {
    const token = run(['mint', keys, 'bob "q" \u{1f600}']).trim();
    const set = jose.createLocalJWKSet(JSON.parse(run(['jwks', keys])));
    const { payload, protectedHeader } = await jose.jwtVerify(token, set, {
        algorithms: ['EdDSA'], typ: 'JWT', subject: 'bob "q" \u{1f600}', audience: 'here',
        maxTokenAge: '10 minutes', requiredClaims: ['jti', 'nbf', 'exp', 'iat'],
    });
    assert.equal(protectedHeader.alg, 'EdDSA');
    assert.equal(payload.scope, 'read write');
    assert.deepEqual(payload.agents, ['support']);
    assert.deepEqual(payload.sessions, ['*']);
    assert.match(payload.jti, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    // The file that holds our key is a JWK that jose signs with, and we accept that.
    const file = fs.readdirSync(keys).find((name) => name.endsWith('.key'));
    const jwk = JSON.parse(fs.readFileSync(path.join(keys, file), 'utf8'));
    const key = await jose.importJWK(jwk, 'EdDSA');
    const again = await new jose.SignJWT({}).setProtectedHeader({ alg: 'EdDSA', kid: jwk.kid })
        .setSubject('carl').setJti('j').setExpirationTime(now + 60).sign(key);
    assert.equal(run(['verify', keys, ''], again + '\n'), 'ok carl\n');
    checked += 2;
}
