/** What the browser test's page runs: the core's replay on a recording fetched by HTTP. */
import { policies } from "../../src/dma/policy.ts";
import { replayRecording } from "../../src/recording/replay/replay.ts";

/** Every policy on a recording, as JSON text. */
export async function replayText(name: string, chunks: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: unknown[] = [];
  const kept: Uint8Array[] = [];
  for await (const chunk of chunks) kept.push(chunk);
  for (const iommu of ["virtio", "hardware"] as const) {
    parts.push(await replayRecording(name, again(kept), { policies, iommu }));
  }
  return JSON.stringify(parts);
}

async function* again(chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

async function* chunksOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  for (;;) {
    const next = await reader.read();
    if (next.done) return;
    yield next.value;
  }
}

/** Fetches a gzip recording and replays it. */
export async function replayUrl(name: string, url: string): Promise<string> {
  const response = await fetch(url);
  const unpacked = response.body?.pipeThrough(new DecompressionStream("gzip"));
  if (unpacked === undefined) throw new Error("the response has no body");
  return replayText(name, chunksOf(unpacked as ReadableStream<Uint8Array>));
}
