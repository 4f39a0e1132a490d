#!/usr/bin/env node
// Prints one line for each snapshot of an agent. Needs Node 18 or newer, and no packages.
//
//     API_KEY=… examples/client.mjs [--tls] [HOST:PORT]
//
// The default is 127.0.0.1:9000. Environment variables:
//
//     API_KEY or API_KEY_FILE         the key, or a file that contains only the key
//     AGENT_CA                        use TLS, and trust the authorities in this PEM file
//                                     (--tls without AGENT_CA: trust the authorities that Node contains)
//     AGENT_NAME                      the name that the agent's certificate must contain; default: HOST
//     AGENT_CERT, AGENT_KEY           PEM files with this client's certificate and key, for mutual TLS
//     AGENT_TIMEOUT                   reconnect after this many seconds without a snapshot; default: 90
import { once } from "node:events";
import { readFileSync } from "node:fs";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import tls from "node:tls";

const env = process.env;
// This client needs only two sections of a snapshot, so it does not request the other sections.
const OPTIONS = { sections: ["system", "containers"] };
const MAX_WAIT = 30; // seconds
// If the agent's host loses power, nothing closes the connection, so the client needs a timeout. 90 s is many times the
// agent's default PUBLISH_INTERVAL of 5 s. If the agent has a much longer interval, set AGENT_TIMEOUT.
const SILENCE = Number(env.AGENT_TIMEOUT || 90);

function fail(why, status = 1) {
  console.error(`client.mjs: ${why}`);
  process.exit(status);
}

async function connect(host, port, identity) {
  const socket = identity ? tls.connect({ host, port, ...identity }) : net.connect({ host, port });
  const timeout = (seconds, what) =>
    socket.setTimeout(seconds * 1000, () => socket.destroy(new Error(`${what} ${seconds} s`)));
  timeout(10, "no answer within");
  // With TLS, wait until the agent's certificate is verified, because another server must not get the key.
  await once(socket, identity ? "secureConnect" : "connect");
  socket.removeAllListeners("timeout");
  timeout(SILENCE, "no snapshot for");
  return socket;
}

// Reads lines of any length. Node's readline would also split at Unicode line separators, which JSON can contain.
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

// Yields one snapshot after the other, without end. Connects again whenever the connection is lost.
async function* snapshots(host, port, key, identity) {
  let resume; // JSON.stringify leaves out a field that is undefined.
  for (let wait = 1; ; wait = Math.min(2 * wait, MAX_WAIT)) {
    let why = "the agent closed the connection";
    try {
      const socket = await connect(host, port, identity);
      socket.write(`${key} ${JSON.stringify({ ...OPTIONS, resume })}\n`);
      for await (const line of lines(socket)) {
        if (line === "Unauthorized") fail("the agent refused the API key", 2);
        const snapshot = JSON.parse(line);
        if (snapshot.error) fail(snapshot.error);
        yield snapshot;
        // With `logs: "new"` or the section events, the next connection continues after this snapshot.
        resume = snapshot.agent?.cursor;
        wait = 1;
      }
    } catch (error) {
      why = error.message || error.code;
    }
    // The pause is random, so that many clients do not connect at the same time after the agent restarts.
    const pause = wait * (0.75 + Math.random() / 4);
    console.error(`client.mjs: ${why}; retry in ${pause.toFixed(1)} s`);
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
// EPIPE: the program that reads this output has ended.
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
      // TLS allows only host names here. If the name is an IP address, checkServerIdentity below verifies it.
      servername: net.isIP(name) ? "" : name,
      checkServerIdentity: (_, certificate) => tls.checkServerIdentity(name, certificate),
    };
    tls.createSecureContext(identity); // Throws an error now if one of the files is wrong.
  }
} catch (error) {
  fail(error.message);
}
if (!key) fail("set API_KEY or API_KEY_FILE");
for await (const snapshot of snapshots(host, Number(port), key, identity)) console.log(summary(snapshot));
