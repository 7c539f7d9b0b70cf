// The scenario chaincode on the official fabric-shim: node chaincode.js SETTINGS. Twin of tests/unit/ledger/scenario_chaincode.py.
"use strict";

const fs = require("node:fs");
const { ClientIdentity, Shim } = require("fabric-shim");

const text = (bytes) => Buffer.from(bytes ?? "").toString("utf8");
const json = (value) => Buffer.from(JSON.stringify(value));

class Refused extends Error {
    constructor(status, message) {
        super(message);
        this.status = status;
    }
}

async function entries(iterator, convert) {
    const found = [];
    for (let item = await iterator.next(); ; item = await iterator.next()) {
        if (item.value) {
            found.push(convert(item.value));
        }
        if (item.done) {
            break;
        }
    }
    await iterator.close();
    return found;
}

const pair = (item) => [item.key, text(item.value)];
const number = (index) => String(index).padStart(4, "0");

const functions = {
    put: async (stub, key, value) => {
        await stub.putState(key, Buffer.from(value));
        return Buffer.from(value);
    },
    get: async (stub, key) => {
        const value = await stub.getState(key);
        if (!value || value.length === 0) {
            throw new Refused(404, `no value under ${key}`);
        }
        return value;
    },
    add: async (stub, key, amount) => {
        const total = Number(text(await stub.getState(key)) || "0") + Number(amount);
        await stub.putState(key, Buffer.from(String(total)));
        return Buffer.from(String(total));
    },
    delete: async (stub, key) => stub.deleteState(key).then(() => undefined),
    many: async (stub, prefix, count) => {
        for (let index = 0; index < Number(count); index++) {
            await stub.putState(prefix + number(index), Buffer.from(String(index)));
        }
        return Buffer.from(count);
    },
    manyValues: async (stub, prefix, count) => {
        const values = [];
        for (let index = 0; index < Number(count); index++) {
            values.push(text(await stub.getState(prefix + number(index))));
        }
        return json(values);
    },
    range: async (stub, start, end) => json(await entries(await stub.getStateByRange(start, end), pair)),
    page: async (stub, start, end, size, bookmark) => {
        const { iterator, metadata } = await stub.getStateByRangeWithPagination(start, end, Number(size), bookmark);
        return json({ entries: await entries(iterator, pair), bookmark: metadata.bookmark });
    },
    history: async (stub, key) => {
        const iterator = await stub.getHistoryForKey(key);
        return json(await entries(iterator, (item) => [item.txId, text(item.value), item.isDelete]));
    },
    emit: async (stub, name, payload, key) => {
        await stub.putState(key, Buffer.from(payload));
        stub.setEvent(name, Buffer.from(payload));
    },
    refuse: async (_, message) => {
        throw new Refused(400, message);
    },
    putPrivate: async (stub, collection, key) => {
        await stub.putPrivateData(collection, key, stub.getTransient().get("value"));
    },
    getPrivate: async (stub, collection, key) => Buffer.from(await stub.getPrivateData(collection, key)),
    privateHash: async (stub, collection, key) =>
        Buffer.from(Buffer.from(await stub.getPrivateDataHash(collection, key)).toString("hex")),
    rangePrivate: async (stub, collection, start, end) => {
        const found = await stub.getPrivateDataByRange(collection, start, end);
        return json(await entries(found.iterator ?? found, pair));
    },
    attribute: async (stub, name) => Buffer.from(new ClientIdentity(stub).getAttributeValue(name) ?? ""),
    transient: async (stub, name) => Buffer.from(stub.getTransient().get(name) ?? ""),
    setPolicy: async (stub, key) => {
        const policy = Buffer.from(text(stub.getTransient().get("policy")), "base64");
        await stub.setStateValidationParameter(key, policy);
    },
};

class Scenario {
    async Init() {
        return Shim.success();
    }

    async Invoke(stub) {
        const [name, ...args] = stub.getArgs();
        try {
            if (name === "call") {
                const answer = await stub.invokeChaincode(args[0], args.slice(1), "");
                return answer.status >= 400 ? failed(answer.status, answer.message) : Shim.success(answer.payload);
            }
            if (!functions[name]) {
                throw new Refused(404, `no function ${name}`);
            }
            return Shim.success(await functions[name](stub, ...args));
        } catch (error) {
            return failed(error.status ?? 500, error.message);
        }
    }
}

function failed(status, message) {
    return { ...Shim.error(message), status };
}

const settings = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
Shim.server(new Scenario(), {
    ccid: settings.chaincode_id,
    address: settings.address,
    tlsProps: {
        key: fs.readFileSync(settings.key),
        cert: fs.readFileSync(settings.certificate),
        clientCACerts: fs.readFileSync(settings.client_ca),
    },
}).start();
