// A client on the official @hyperledger/fabric-gateway, driven line by line: a JSON request in, a JSON answer out (../drivers.py).
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const readline = require("node:readline");
const grpc = require("@grpc/grpc-js");
const { checkpointers, connect, hash, signers } = require("@hyperledger/fabric-gateway");

const settings = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const gateways = new Map();
const prepared = [];
const checkpoints = new Map();

function network(member) {
    if (!gateways.has(member)) {
        const own = settings.members[member];
        const shown = own.tls_certificate ? fs.readFileSync(own.tls_certificate) : null;
        const credentials = grpc.credentials.createSsl(
            fs.readFileSync(own.tls_ca), shown && fs.readFileSync(own.tls_key), shown,
        );
        const client = new grpc.Client(own.address, credentials);
        const certificate = fs.readFileSync(own.certificate);
        const key = crypto.createPrivateKey(fs.readFileSync(own.key));
        const deadline = () => ({ deadline: Date.now() + 30_000 });
        gateways.set(member, connect({
            client,
            identity: { mspId: own.msp_id, credentials: certificate },
            signer: signers.newPrivateKeySigner(key),
            hash: key.asymmetricKeyType === "ed25519" ? hash.none : hash.sha256,
            tlsClientCertificateHash: shown
                ? crypto.createHash("sha256").update(new crypto.X509Certificate(shown).raw).digest()
                : undefined,
            evaluateOptions: deadline, endorseOptions: deadline, submitOptions: deadline, commitStatusOptions: deadline,
        }));
    }
    return gateways.get(member).getNetwork(settings.channel);
}

function proposal(request) {
    const [name, ...args] = request.arguments;
    const transient = Object.entries(request.transient ?? {}).map(([key, value]) => [key, Buffer.from(value)]);
    return network(request.member).getContract(request.chaincode).newProposal(name, {
        arguments: args,
        transientData: transient.length ? Object.fromEntries(transient) : undefined,
        endorsingOrganizations: request.organisations?.length ? request.organisations : undefined,
    });
}

const text = (bytes) => Buffer.from(bytes).toString("utf8");

async function finish(transaction) {
    const submitted = await transaction.submit();
    const status = await submitted.getStatus();
    if (!status.successful) {
        const error = new Error(`transaction ${status.transactionId} failed to commit with code ${status.code}`);
        Object.assign(error, { name: "CommitError", validation: status.code });
        throw error;
    }
    return { result: text(submitted.getResult()), transaction: status.transactionId, block: Number(status.blockNumber) };
}

async function take(iterable, count, convert) {
    const found = [];
    try {
        for await (const item of iterable) {
            found.push(await convert(item));
            if (found.length === count) {
                return found;
            }
        }
    } finally {
        iterable.close();
    }
    return found;
}

function collections(block) {
    const found = [];
    block.getPrivateDataMapMap().forEach((sets) => {
        for (const one of sets.getNsPvtRwsetList()) {
            found.push([one.getNamespace(), one.getCollectionPvtRwsetList().map((held) => held.getCollectionName())]);
        }
    });
    return found;
}

const acts = {
    evaluate: async (request) => ({ result: text(await proposal(request).evaluate()) }),
    submit: async (request) => finish(await proposal(request).endorse()),
    endorse: async (request) => {
        const transaction = await proposal(request).endorse();
        prepared.push(transaction);
        return { handle: prepared.length - 1, transaction: transaction.getTransactionId() };
    },
    finish: async (request) => finish(prepared[request.handle]),
    events: async (request) => {
        if (request.checkpoint && !checkpoints.has(request.checkpoint)) {
            checkpoints.set(request.checkpoint, checkpointers.inMemory());
        }
        const checkpoint = checkpoints.get(request.checkpoint);
        const options = { startBlock: BigInt(request.start), checkpoint };
        const iterable = await network(request.member).getChaincodeEvents(request.chaincode, options);
        return {
            events: await take(iterable, request.count, async (event) => {
                await checkpoint?.checkpointChaincodeEvent(event);
                return {
                    name: event.eventName, payload: text(event.payload),
                    transaction: event.transactionId, block: Number(event.blockNumber),
                };
            }),
        };
    },
    blocks: async (request) => {
        const iterable = await network(request.member).getBlockEvents({ startBlock: BigInt(request.start) });
        return {
            blocks: await take(iterable, request.count, (block) => ({
                number: block.getHeader().getNumber(),
                previous: Buffer.from(block.getHeader().getPreviousHash_asU8()).toString("hex"),
                data: Buffer.from(block.getHeader().getDataHash_asU8()).toString("hex"),
            })),
        };
    },
    private: async (request) => {
        const iterable = await network(request.member).getBlockAndPrivateDataEvents({ startBlock: BigInt(request.start) });
        return {
            blocks: await take(iterable, request.count, (found) => ({
                number: found.getBlock().getHeader().getNumber(),
                collections: collections(found),
            })),
        };
    },
    filtered: async (request) => {
        const iterable = await network(request.member).getFilteredBlockEvents({ startBlock: BigInt(request.start) });
        return {
            blocks: await take(iterable, request.count, (block) => ({
                number: block.getNumber(),
                transactions: block.getFilteredTransactionsList().map((one) => [one.getTxid(), one.getTxValidationCode()]),
            })),
        };
    },
};

function fault(error) {
    const details = (error.details ?? []).map((detail) => detail.message);
    return {
        kind: error.name, code: error.code ?? null, message: error.message, details, validation: error.validation ?? 0,
    };
}

async function main() {
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const request = JSON.parse(line);
        let answer;
        try {
            answer = await acts[request.act](request);
        } catch (error) {
            answer = { error: fault(error) };
        }
        process.stdout.write(JSON.stringify(answer) + "\n");
    }
    process.exit(0);
}

main();
