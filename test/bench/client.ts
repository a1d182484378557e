import assert from "node:assert/strict";
import { Agent, request } from "node:http";
import { busyboxLayout, pushLayout } from "../peers/images.ts";
import type { BenchSide } from "./sides.ts";

interface Reply {
  readonly status: number;
  readonly text: string;
}

/** A client of one daemon over kept-alive connections, alike for all sides. */
export class Client {
  readonly #agent = new Agent({ keepAlive: true });
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  call(method: string, path: string, body?: unknown): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const headers =
        text === undefined
          ? {}
          : { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) };
      const sent = request(
        { socketPath: this.#socketPath, method, path: `/v1.41${path}`, agent: this.#agent, headers },
        (answer) => {
          const chunks: Buffer[] = [];
          answer.on("data", (chunk: Buffer) => chunks.push(chunk));
          answer.on("end", () =>
            resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString() }),
          );
        },
      );
      sent.on("error", reject);
      sent.end(text);
    });
  }

  async expect(status: number, method: string, path: string, body?: unknown): Promise<string> {
    const reply = await this.call(method, path, body);
    assert.equal(reply.status, status, `${method} ${path}: ${reply.text}`);
    return reply.text;
  }

  async create(body: object): Promise<string> {
    return (JSON.parse(await this.expect(201, "POST", "/containers/create", body)) as { Id: string }).Id;
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** The small image that every row but pull-5 works with, as a side knows it. */
export const image = (side: BenchSide): string => `${side.registry.address}/busybox:latest`;
const prepared = new Set<string>();

/** Every side gets the image from the registry beside it. */
export function prepare(sides: readonly BenchSide[]): void {
  for (const side of sides) {
    if (prepared.has(side.socket)) continue;
    pushLayout(busyboxLayout(), image(side), { netnsOf: side.netnsOf });
    const pulled = side.cli("pull", "-q", image(side));
    assert.equal(pulled.status, 0, `${side.name}: ${pulled.stderr}`);
    prepared.add(side.socket);
  }
}
