/** Every benchmark file, one line each. */

import { benchmarks as firmware } from "./firmware.bench.ts";
import type { Benchmark } from "./harness.ts";
import { benchmarks as inspect } from "./inspect.bench.ts";
import { benchmarks as iommufd } from "./iommufd.bench.ts";
import { benchmarks as iopf } from "./iopf.bench.ts";
import { benchmarks as iotlb } from "./iotlb.bench.ts";
import { benchmarks as iova } from "./iova.bench.ts";
import { benchmarks as liveHold } from "./live-hold.bench.ts";
import { benchmarks as liveSync } from "./live-sync.bench.ts";
import { benchmarks as liveSystem } from "./live-system.bench.ts";
import { benchmarks as mmio } from "./mmio.bench.ts";
import { benchmarks as nvme } from "./nvme.bench.ts";
import { benchmarks as pageTable } from "./page-table.bench.ts";
import { benchmarks as pinning } from "./pinning.bench.ts";
import { benchmarks as recording } from "./recording.bench.ts";
import { benchmarks as replay } from "./replay.bench.ts";
import { benchmarks as sim } from "./sim.bench.ts";
import { benchmarks as timedTranslation } from "./timed-translation.bench.ts";
import { benchmarks as type1 } from "./type1.bench.ts";
import { benchmarks as vfioAttach } from "./vfio-attach.bench.ts";
import { benchmarks as vfioRecording } from "./vfio-recording.bench.ts";
import { benchmarks as vfioUser } from "./vfio-user.bench.ts";
import { benchmarks as virtioBlk } from "./virtio-blk.bench.ts";
import { benchmarks as virtioIommu } from "./virtio-iommu.bench.ts";
import { benchmarks as virtqueue } from "./virtqueue.bench.ts";

export const benchmarks: readonly Benchmark[] = [
  ...iopf,
  ...firmware,
  ...inspect,
  ...iommufd,
  ...iotlb,
  ...iova,
  ...liveHold,
  ...liveSync,
  ...liveSystem,
  ...mmio,
  ...nvme,
  ...pageTable,
  ...pinning,
  ...recording,
  ...replay,
  ...sim,
  ...timedTranslation,
  ...type1,
  ...vfioAttach,
  ...vfioRecording,
  ...vfioUser,
  ...virtioBlk,
  ...virtioIommu,
  ...virtqueue,
];
