// Drives the npm package acme-client: node driver.js COMMAND SETTINGS, where SETTINGS is JSON; prints one line of JSON.
'use strict';

const fs = require('fs');
const path = require('path');
const acme = require('acme-client');

const settings = JSON.parse(process.argv[3]);
acme.axios.defaults.acmeSettings.httpChallengePort = settings.httpPort;
acme.axios.defaults.acmeSettings.retryDefaultDelay = 1;

function file(name) {
    return path.join(process.cwd(), name);
}

async function client() {
    if (!fs.existsSync(file('account.key'))) {
        const make = settings.rsa ? acme.crypto.createPrivateRsaKey : acme.crypto.createPrivateEcdsaKey;
        fs.writeFileSync(file('account.key'), await make());
    }
    const options = { directoryUrl: settings.directory, accountKey: fs.readFileSync(file('account.key')), backoffMin: 500, backoffMax: 3000, backoffAttempts: 60 };
    if (settings.external) {
        options.externalAccountBinding = { kid: settings.external[0], hmacKey: settings.external[1] };
    }
    return new acme.Client(options);
}

async function withAccount() {
    const found = await client();
    await found.createAccount({ termsOfServiceAgreed: true, contact: ['mailto:operator@acme.test'] });
    return found;
}

function place(authz, challenge) {
    return challenge.type === 'dns-01'
        ? path.join(settings.records, `_acme-challenge.${authz.identifier.value}`)
        : path.join(settings.webroot, challenge.token);
}

const commands = {
    async obtain() {
        const [key, csr] = await acme.crypto.createCsr({ commonName: settings.names[0], altNames: settings.names });
        const found = await client();
        const chain = await found.auto({
            csr,
            email: 'operator@acme.test',
            termsOfServiceAgreed: true,
            skipChallengeVerification: true, // it asks the system's resolver
            challengePriority: [settings.challenge],
            challengeCreateFn: async (authz, challenge, keyAuthorization) => fs.appendFileSync(place(authz, challenge), `${keyAuthorization}\n`),
            challengeRemoveFn: async (authz, challenge) => fs.rmSync(place(authz, challenge), { force: true }),
        });
        fs.writeFileSync(file('own.key'), key);
        fs.writeFileSync(file('chain.pem'), chain);
        return { account: found.getAccountUrl() };
    },

    async account() {
        const found = await withAccount();
        return { account: found.getAccountUrl(), status: (await found.updateAccount({ contact: settings.contact || [] })).contact };
    },

    async changeKey() {
        const found = await withAccount();
        const next = await acme.crypto.createPrivateEcdsaKey();
        await found.updateAccountKey(next);
        fs.writeFileSync(file('account.key'), next);
        return { account: found.getAccountUrl() };
    },

    async deactivate() {
        const found = await withAccount();
        return { status: (await found.updateAccount({ status: 'deactivated' })).status };
    },

    async deactivateAuthorization() {
        const found = await withAccount();
        const order = await found.createOrder({ identifiers: settings.names.map((value) => ({ type: 'dns', value })) });
        const [authz] = await found.getAuthorizations(order);
        const over = await found.deactivateAuthorization(authz);
        return { status: over.status, order: (await found.getOrder(order)).status };
    },

    async revoke() {
        const found = await withAccount();
        await found.revokeCertificate(fs.readFileSync(file('chain.pem')), { reason: settings.reason });
        return {};
    },
};

commands[process.argv[2]]().then(
    (answer) => console.log(JSON.stringify(answer)),
    (error) => {
        console.log(JSON.stringify({ error: error.message }));
        process.exitCode = 1;
    },
);
