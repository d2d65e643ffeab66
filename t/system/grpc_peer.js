// SPDX-License-Identifier: BSD-2-Clause
// A gRPC server and a client that calls all of it, on @grpc/grpc-js; test_grpc_node.py runs both, with moongate between.
//     node grpc_peer.js serve [CERTIFICATE KEY]      prints its port, serves until its standard input ends
//     node grpc_peer.js call HOST:PORT [CA]          prints "ok NAME" or "not ok NAME: WHY" for each kind of call
// Messages are bytes as they are: what is between sees nothing of them.
'use strict';
const assert = require('assert');
const fs = require('fs');
const grpc = require('@grpc/grpc-js');

const OPTIONS = { 'grpc.max_receive_message_length': 64 << 20, 'grpc.max_send_message_length': 64 << 20 };
const method = (name, requestStream, responseStream) => ({
    path: `/t.Echo/${name}`, requestStream, responseStream,
    requestSerialize: (x) => x, requestDeserialize: (x) => x, responseSerialize: (x) => x, responseDeserialize: (x) => x,
});
const service = {
    Unary: method('Unary', false, false), ServerStream: method('ServerStream', false, true),
    ClientStream: method('ClientStream', true, false), Bidi: method('Bidi', true, true),
    Fail: method('Fail', false, false), FailLate: method('FailLate', false, true), Never: method('Never', false, false),
    Seen: method('Seen', false, false),
};

// ---- the server

const seen = { cancelled: 0, open: 0, most: 0 };

const implementation = {
    Unary(call, done) {
        const head = new grpc.Metadata(), trailer = new grpc.Metadata();
        for (const name of ['x-meta', 'x-data-bin'])
            for (const value of call.metadata.get(name))
                head.add(name, value);
        trailer.set('x-trail', 'behind');
        call.sendMetadata(head);
        done(null, call.request, trailer);
    },
    // "COUNT SIZE": so many messages, at the pace at which they are taken.
    ServerStream(call) {
        const [count, size] = call.request.toString().split(' ').map(Number);
        let n = 0;
        const go = () => {
            while (n < count) {
                const message = Buffer.alloc(size, n & 255);
                message.writeUInt32BE(n++, 0);
                if (!call.write(message)) {
                    call.once('drain', go);
                    return;
                }
            }
            call.end();
        };
        go();
    },
    ClientStream(call, done) {
        let count = 0, bytes = 0;
        call.on('data', (message) => {
            count++;
            bytes += message.length;
        });
        call.on('end', () => done(null, Buffer.from(`${count} ${bytes}`)));
    },
    Bidi(call) {
        seen.open++;
        seen.most = Math.max(seen.most, seen.open);
        let over = false;
        const gone = () => {
            seen.open -= !over;
            over = true;
        };
        call.on('data', (message) => call.write(Buffer.from(message.toString().toUpperCase())));
        call.on('end', () => {
            gone();
            call.end();
        });
        call.on('cancelled', () => {
            seen.cancelled++;
            gone();
        });
    },
    Fail(call, done) {
        const metadata = new grpc.Metadata();
        metadata.set('x-why', 'because');
        done({ code: grpc.status.NOT_FOUND, details: 'no such thing: \u00e4 %', metadata });
    },
    FailLate(call) {
        call.write(Buffer.from('one'));
        call.emit('error', { code: grpc.status.DATA_LOSS, details: 'broken' });
    },
    Never(call) {
        call.on('cancelled', () => seen.cancelled++);
    },
    Seen(call, done) {
        done(null, Buffer.from(JSON.stringify(seen)));
    },
};

function serve(certificate, key) {
    const server = new grpc.Server(OPTIONS);
    server.addService(service, implementation);
    const credentials = certificate
        ? grpc.ServerCredentials.createSsl(null, [{ cert_chain: fs.readFileSync(certificate), private_key: fs.readFileSync(key) }])
        : grpc.ServerCredentials.createInsecure();
    server.bindAsync('127.0.0.1:0', credentials, (error, port) => {
        assert.ifError(error);
        console.log(port);
    });
    process.stdin.on('end', () => process.exit(0)).resume();
}

// ---- the client

const Echo = grpc.makeGenericClientConstructor(service, 'Echo');
const soon = (seconds) => ({ deadline: Date.now() + seconds * 1000 });
let client;

function unary(name, message, metadata = new grpc.Metadata(), options = soon(30)) {
    const got = {};
    return new Promise((done) => {
        const call = client[name](message, metadata, options, (error, answer) => Object.assign(got, { error, answer }));
        call.on('metadata', (head) => { got.head = head; });
        call.on('status', (status) => {
            got.status = status;
            setImmediate(() => done(got));
        });
        got.call = call;
    });
}

// Of a stream: its messages and its status, when it is over.
function all(call) {
    const got = { messages: [] };
    return new Promise((done) => {
        call.on('data', (message) => got.messages.push(message));
        call.on('error', () => {});
        call.on('status', (status) => {
            got.status = status;
            setImmediate(() => done(got));
        });
    });
}

const next = (call) => new Promise((done, fail) => {
    call.once('error', fail);
    call.once('data', (message) => {
        call.off('error', fail);
        done(message);
    });
});

async function eventually(what) {
    for (let i = 0; i < 500; i++) {
        if (await what())
            return;
        await new Promise((done) => setTimeout(done, 10));
    }
    assert.fail(`not in time: ${what}`);
}

const seenThere = async () => JSON.parse((await unary('Seen', Buffer.alloc(0))).answer.toString());

const calls = {
    async unary() {
        for (let i = 0; i < 100; i++) {
            const { answer, status } = await unary('Unary', Buffer.from(`hi ${i}`));
            assert.strictEqual(answer.toString(), `hi ${i}`);
            assert.strictEqual(status.code, grpc.status.OK);
        }
    },
    async empty_message() {
        assert.strictEqual((await unary('Unary', Buffer.alloc(0))).answer.length, 0);
    },
    async metadata() {
        const metadata = new grpc.Metadata();
        metadata.add('x-meta', 'one');
        metadata.add('x-meta', 'two');
        metadata.add('x-data-bin', Buffer.from([0, 1, 254, 255]));
        const { head, status } = await unary('Unary', Buffer.from('x'), metadata);
        assert.strictEqual(head.get('x-meta').join(', '), 'one, two');
        assert.deepStrictEqual(head.get('x-data-bin'), [Buffer.from([0, 1, 254, 255])]);
        assert.deepStrictEqual(status.metadata.get('x-trail'), ['behind']);
    },
    async server_streaming() {
        const { messages, status } = await all(client.ServerStream(Buffer.from('1000 100'), soon(30)));
        assert.deepStrictEqual(messages.map((m) => m.readUInt32BE(0)), [...Array(1000).keys()]);
        assert.strictEqual(status.code, grpc.status.OK);
    },
    async server_streaming_that_is_taken_slowly() {
        const call = client.ServerStream(Buffer.from('256 65536'), soon(60));
        let n = 0;
        for await (const message of call) {
            assert.strictEqual(message.length, 65536);
            assert.strictEqual(message.readUInt32BE(0), n++);
            if (n % 32 === 0) // a call beside it is not held up
                assert.strictEqual((await unary('Unary', Buffer.from('beside'))).answer.toString(), 'beside');
        }
        assert.strictEqual(n, 256);
    },
    async client_streaming() {
        const answer = await new Promise((done, fail) => {
            const call = client.ClientStream(soon(30), (error, message) => (error ? fail(error) : done(message.toString())));
            for (let i = 0; i < 500; i++)
                call.write(Buffer.alloc(1000));
            call.end();
        });
        assert.strictEqual(answer, '500 500000');
    },
    async bidirectional_streaming() {
        const call = client.Bidi(soon(30));
        for (let i = 0; i < 50; i++) { // each is answered before the next goes
            call.write(Buffer.from(`m${i}`));
            assert.strictEqual((await next(call)).toString(), `M${i}`);
        }
        const rest = all(call);
        call.end();
        assert.strictEqual((await rest).status.code, grpc.status.OK);
    },
    async deadline() {
        const { cancelled } = await seenThere();
        const { error } = await unary('Never', Buffer.from('x'), new grpc.Metadata(), soon(0.2));
        assert.strictEqual(error.code, grpc.status.DEADLINE_EXCEEDED);
        await eventually(async () => (await seenThere()).cancelled === cancelled + 1);
    },
    async cancellation() {
        const { cancelled } = await seenThere();
        const call = client.Bidi(soon(30));
        const over = all(call);
        call.write(Buffer.from('a'));
        await new Promise((done) => call.once('data', done));
        call.cancel();
        assert.strictEqual((await over).status.code, grpc.status.CANCELLED);
        await eventually(async () => (await seenThere()).cancelled === cancelled + 1);
    },
    async trailers_only() {
        const { error, status } = await unary('Fail', Buffer.from('x'));
        assert.strictEqual(error.code, grpc.status.NOT_FOUND);
        assert.strictEqual(error.details, 'no such thing: \u00e4 %');
        assert.deepStrictEqual(status.metadata.get('x-why'), ['because']);
    },
    async error_behind_a_message() {
        const { messages, status } = await all(client.FailLate(Buffer.from('x'), soon(30)));
        assert.deepStrictEqual(messages.map(String), ['one']);
        assert.strictEqual(status.code, grpc.status.DATA_LOSS);
        assert.strictEqual(status.details, 'broken');
    },
    async no_such_method() {
        const call = (x) => x;
        const error = await new Promise((done) => client.makeUnaryRequest('/t.Echo/None', call, call, Buffer.from('x'),
            soon(30), done));
        assert.strictEqual(error.code, grpc.status.UNIMPLEMENTED);
    },
    async large_messages() {
        for (const size of [65535, 65536, 1 << 20, 4 << 20]) {
            const message = Buffer.alloc(size);
            for (let i = 0; i + 4 <= size; i += 4)
                message.writeUInt32BE(i, i);
            const { answer, error } = await unary('Unary', message);
            assert.ifError(error);
            assert.ok(answer.equals(message), `${size} bytes are not the same`);
        }
    },
    async a_hundred_streams_at_the_same_time() {
        const streams = Array.from({ length: 100 }, () => client.Bidi(soon(60)));
        for (let turn = 0; turn < 3; turn++)
            await Promise.all(streams.map(async (call, i) => {
                call.write(Buffer.from(`s${i}.${turn}`));
                assert.strictEqual((await next(call)).toString(), `S${i}.${turn}`);
            }));
        const over = streams.map(all);
        streams.forEach((call) => call.end());
        for (const { status } of await Promise.all(over))
            assert.strictEqual(status.code, grpc.status.OK);
        assert.ok((await seenThere()).most >= 100);
    },
};

async function callAll(address, ca) {
    const credentials = ca ? grpc.credentials.createSsl(fs.readFileSync(ca)) : grpc.credentials.createInsecure();
    client = new Echo(address, credentials, OPTIONS);
    for (const [name, call] of Object.entries(calls)) {
        try {
            await call();
            console.log(`ok ${name}`);
        } catch (error) {
            console.log(`not ok ${name}: ${String(error.stack).replace(/\n/g, ' ')}`);
        }
    }
    client.close();
}

const [what, ...rest] = process.argv.slice(2);
if (what === 'serve')
    serve(...rest);
else
    callAll(...rest);
