#!/usr/bin/env node
// Prints one line for each snapshot of an agent. Node 18 or newer, nothing else.
//
//     API_KEY=… examples/client.mjs [--tls] [HOST:PORT]
//
// By default 127.0.0.1:9000. From the environment:
//
//     API_KEY, or API_KEY_FILE        the key, or a file that holds it alone
//     AGENT_CA                        TLS, with an agent whose certificate this PEM file vouches for
//                                     (--tls alone: the authorities that Node brings)
//     AGENT_NAME                      the name that the certificate must have, if it is not HOST
//     AGENT_CERT, AGENT_KEY           PEM files of this client's certificate and key, for mutual TLS
//     AGENT_TIMEOUT                   how many seconds without a snapshot are too many: 90
import { once } from "node:events";
import { readFileSync } from "node:fs";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import tls from "node:tls";

const env = process.env;
// Less for the agent to send, and for us to read.
const OPTIONS = JSON.stringify({ sections: ["system", "containers"] });
const LONGEST_WAIT = 30;
// A host that loses its power says nothing more, and nothing ends the connection. 90 s are many times the agent's
// PUBLISH_INTERVAL of 5 s; where that is longer, so must this be.
const SILENCE = Number(env.AGENT_TIMEOUT || 90);

function fail(why, status = 1) {
  console.error(`client.mjs: ${why}`);
  process.exit(status);
}

async function connect(host, port, identity) {
  const socket = identity ? tls.connect({ host, port, ...identity }) : net.connect({ host, port });
  const patience = (seconds, what) =>
    socket.setTimeout(seconds * 1000, () => socket.destroy(new Error(`${what} ${seconds} s`)));
  patience(10, "no answer within");
  // With TLS: not before the certificate is verified. Nobody else is to see the key.
  await once(socket, identity ? "secureConnect" : "connect");
  socket.removeAllListeners("timeout");
  patience(SILENCE, "no snapshot for");
  return socket;
}

// Of any length. readline would also split at the line separators of Unicode, which JSON may contain.
async function* lines(socket) {
  let parts = [];
  for await (const chunk of socket) {
    let start = 0;
    for (let end; (end = chunk.indexOf("\n", start)) >= 0; start = end + 1) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]).toString();
      parts = [];
    }
    parts.push(chunk.subarray(start));
  }
}

// One after the other, for ever: connects again whenever the connection is lost.
async function* snapshots(host, port, key, identity) {
  for (let wait = 1; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
    let why = "the agent closed the connection";
    try {
      const socket = await connect(host, port, identity);
      socket.write(`${key} ${OPTIONS}\n`);
      for await (const line of lines(socket)) {
        if (line === "Unauthorized") fail("the key was refused: it is not one of the agent's", 2);
        const snapshot = JSON.parse(line);
        if (snapshot.error) fail(snapshot.error);
        yield snapshot;
        wait = 1;
      }
    } catch (error) {
      why = error.message || error.code;
    }
    // Not exactly: clients that were cut off at once must not all come back at once.
    const pause = wait * (0.75 + Math.random() / 4);
    console.error(`client.mjs: ${why}; again in ${pause.toFixed(1)} s`);
    await sleep(pause * 1000);
  }
}

function summary({ host, system, containers }) {
  const busiest = containers.sort((a, b) => b.cpu_percent - a.cpu_percent).slice(0, 3);
  const named = busiest.map((one) => `${one.name.replace(/^\//, "")} ${one.cpu_percent.toFixed(1)} %`);
  const text = `${host.hostname}  cpu ${system.cpu_percent[0].toFixed(1)} %`;
  return named.length ? `${text}  busiest: ${named.join(", ")}` : text;
}

for (const ending of ["SIGINT", "SIGTERM"]) process.on(ending, () => process.exit(0));
// Nobody reads any more.
process.stdout.on("error", ({ code, message }) => (code === "EPIPE" ? process.exit(0) : fail(message)));

const given = process.argv.slice(2).filter((one) => one !== "--tls");
const [, host, port] = (given[0] ?? "127.0.0.1:9000").match(/^\[?(.+?)\]?:(\d+)$/) ?? [];
if (given.length > 1 || !host) fail("usage: client.mjs [--tls] [HOST:PORT]");
let key, identity;
try {
  key = env.API_KEY || (env.API_KEY_FILE && readFileSync(env.API_KEY_FILE, "utf8").trim());
  if (process.argv.includes("--tls") || env.AGENT_CA) {
    const read = (path) => (path ? readFileSync(path) : undefined);
    const name = env.AGENT_NAME || host;
    identity = {
      ca: read(env.AGENT_CA),
      cert: read(env.AGENT_CERT),
      key: read(env.AGENT_KEY),
      // Addresses are verified, but not sent: TLS has no room for them there.
      servername: net.isIP(name) ? "" : name,
      checkServerIdentity: (_, certificate) => tls.checkServerIdentity(name, certificate),
    };
    tls.createSecureContext(identity); // What is wrong with the files is told at once.
  }
} catch (error) {
  fail(error.message);
}
if (!key) fail("set API_KEY or API_KEY_FILE");
for await (const snapshot of snapshots(host, Number(port), key, identity)) console.log(summary(snapshot));
