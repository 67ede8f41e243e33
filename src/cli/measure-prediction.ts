/** What the thread published, and what a replay of a strict trace says of lazy. */
import { policyNamed } from "../dma/policy.ts";
import { assert } from "../errors.ts";
import type { Row } from "../live/measure/summary.ts";
import { openFile } from "../recording/node/file-source.ts";
import { replayRecording } from "../recording/replay/replay.ts";
import type { Prediction, Publication, PublishedValue } from "../report/measure-report.ts";
import { publishedBandwidth, publishedLatency } from "../sim/reproduce/flush-queue.ts";

/** Rows of the published tables that Linux 7.2's modes correspond to. */
const publishedModes = [
  ["identity", "noviommu"],
  ["lazy", "lazy mq +map"],
  ["strict", "strict +map"],
] as const;

/** The published values. */
export function flushQueuePublication(): Publication {
  const values = publishedModes.flatMap(([mode, name]): PublishedValue[] => {
    const bandwidth = publishedBandwidth.find((row) => row.name === name);
    const latency = publishedLatency.find((row) => row.name === name);
    assert(bandwidth !== undefined && latency !== undefined, "the row was published");
    return [
      // Percent there.
      { kind: "bandwidth", job: "randwrite_multi", mode, name, value: bandwidth.published / 100 },
      { kind: "latency", job: "randrw_page", mode, name, value: latency.published },
    ];
  });
  return {
    source:
      "Published: linux-iommu, RFC iommu/virtio: Use single flush queue, 2 August 2023; an NVMe disk passed " +
      "through on other hardware, under KVM, relative to its host. Ours is relative to identity in the same " +
      "round; the order is comparable, the size is not.",
    values,
  };
}

/** Replays a strict trace under strict and lazy, and puts the latter beside what was measured. */
export async function predictLazy(file: string, measured: Row): Promise<Prediction> {
  const policy = policyNamed("lazy-mq+map");
  assert(policy !== undefined, "the policy exists");
  const { replay } = await replayRecording(
    file,
    openFile(file),
    { policies: [policy], iommu: "virtio" },
    () => {},
  );
  const { requests } = replay.policies[0]!;
  const { perIo, disk, job } = measured;
  return {
    file,
    disk,
    job,
    rows: [
      {
        what: "kicks per UNMAP",
        predicted: (requests.kicks ?? 0) / requests.unmap,
        measured: perIo.kicks / perIo.unmaps,
      },
      {
        what: "waits per UNMAP",
        predicted: requests.syncs / requests.unmap,
        measured: perIo.syncs / perIo.unmaps,
      },
      {
        what: "MAP per UNMAP",
        predicted: requests.map / requests.unmap,
        measured: perIo.maps / perIo.unmaps,
      },
    ],
  };
}
