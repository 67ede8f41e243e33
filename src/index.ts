/**
 * The library: the stack's parts, its readers of recordings, replay and verify. Nothing here needs
 * Node; a recording comes in as an async iterable of bytes, unpacked.
 *
 *     import { policies, replayRecording } from "iommukit";
 *     const { replay } = await replayRecording("trace.txt", chunks, { policies, iommu: "virtio" });
 */

export type { BlockStore } from "./block/block-store.ts";
export { MemoryStore } from "./block/memory-store.ts";
export { DmaDirection } from "./dma/direction.ts";
export { DmaDevice } from "./dma/dma-device.ts";
export { DmaDomain } from "./dma/dma-domain.ts";
export { FlushQueue } from "./dma/flush-queue.ts";
export { IovaDomain } from "./dma/iova-domain.ts";
export { type Policy, policies, policyNamed } from "./dma/policy.ts";
export { Errno, errnoName } from "./errno.ts";
export { AssertionError, type Position, positionText, StackError } from "./errors.ts";
export { type AcpiKind, buildTable } from "./firmware/acpi/build.ts";
export { type DecodedTable, decodeTable } from "./firmware/acpi/decode.ts";
export {
  type Delivery,
  type DeliveryTarget,
  type DeliveryWay,
  deliver,
} from "./firmware/acpi/delivery.ts";
export { readTables, type TablesReading } from "./firmware/acpi/machine-parts.ts";
export { decodeBlob, encodeBlob } from "./firmware/devicetree/blob.ts";
export type { DevicetreeBlob } from "./firmware/devicetree/blob-format.ts";
export { flatten } from "./firmware/devicetree/blob-write.ts";
export { buildDevicetree } from "./firmware/devicetree/build.ts";
export { type DevicetreeReading, readDevicetree } from "./firmware/devicetree/reader.ts";
export { writeSource } from "./firmware/devicetree/source.ts";
export { type EndpointView, type GuestView, guestView } from "./firmware/guest-view/guest-view.ts";
export {
  bootOrder,
  type GuestDescription,
  type GuestPlatform,
  platforms,
} from "./firmware/guest-view/platform.ts";
export type { TableFinding } from "./firmware/table-finding.ts";
export { encodeItem, type Structure } from "./firmware/table-item.ts";
export { DomainType, IommuDomain } from "./iommu/domain.ts";
export type { DriverDomain } from "./iommu/driver-domain.ts";
export { amdV1 } from "./iommu/formats/amd-v1.ts";
export { armStage1 } from "./iommu/formats/arm-stage1.ts";
export { armStage2 } from "./iommu/formats/arm-stage2.ts";
export { vtdSecondStage } from "./iommu/formats/vtd-second-stage.ts";
export { amdV2, vtdFirstStage } from "./iommu/formats/x86-64.ts";
export { IotlbGather } from "./iommu/gather.ts";
export { HardwareDomain } from "./iommu/hardware-domain.ts";
export type { FaultGroup, IopfHandler } from "./iommu/iopf/fault-group.ts";
export { IopfQueue } from "./iommu/iopf/iopf-queue.ts";
export { type PageRequest, PageResponse } from "./iommu/iopf/page-request.ts";
export { PageRequestQueue } from "./iommu/iopf/page-request-queue.ts";
export { PriDevice } from "./iommu/iopf/pri-device.ts";
export { enablePri, PriInterface } from "./iommu/iopf/pri-interface.ts";
export { StallDevice } from "./iommu/iopf/stall-device.ts";
export { StallQueue } from "./iommu/iopf/stall-queue.ts";
export { SvaHandler } from "./iommu/iopf/sva-handler.ts";
export { PageTable } from "./iommu/page-table.ts";
export { PROT_RW, Prot } from "./iommu/prot.ts";
export { TranslationUnit } from "./iommu/translation-unit.ts";
export type { DeviceMemory } from "./memory/device-memory.ts";
export { GuestMemory } from "./memory/guest-memory.ts";
export { PagePool } from "./memory/page-pool.ts";
export { CountingMeter, type Meter, NULL_METER, Step, type StepName } from "./meter.ts";
export type { InterruptSink, PciFunction } from "./pci/function.ts";
export { AllocationReader } from "./recording/allocations.ts";
export { QemuLogReader } from "./recording/qemu-log.ts";
export { type Recording, recognise } from "./recording/recognise.ts";
export {
  type ReplayOptions,
  type ReplayOutcome,
  replayRecording,
} from "./recording/replay/replay.ts";
export type {
  IommuKind,
  PolicyResult,
  RecordingReplay,
  WorkloadFacts,
} from "./recording/replay/result.ts";
export { TraceTextReader } from "./recording/trace-text.ts";
export type { Diagnostic, Divergence, RecordingResult } from "./recording/verify/result.ts";
export { type VerifyOptions, verifyRecording } from "./recording/verify/verify.ts";
export { type ReplayJson, replayCsv, replayJson } from "./report/replay-report.ts";
export { renderReplay } from "./report/replay-text.ts";
export { profileNamed, profiles } from "./sim/profiles/catalog.ts";
export { type MachineProfile, machineOf } from "./sim/profiles/machine-profile.ts";
export { type AllReduceStudyOptions, allReduceStudy } from "./sim/study/all-reduce-study.ts";
export {
  acceleratorMachines,
  allReduceMachines,
  vmStartMachines,
  windowMachines,
} from "./sim/study/machines.ts";
export { compareStudy, type Study, type StudyOutcome } from "./sim/study/study.ts";
export { type WindowStudyOptions, windowStudy } from "./sim/study/window-study.ts";
export {
  type ComparisonOptions,
  comparePolicies,
  type PolicyOutcome,
} from "./sim/workload/compare-policies.ts";
export { type FioJob, type FioWorkload, fioJobs } from "./sim/workload/fio-job.ts";
export type { BarPlan, RamPlan } from "./sim/workload/vm-mappings.ts";
export { runVmStart, type VmStartPlan, type VmStartResult } from "./sim/workload/vm-start.ts";
export { compareGroups, type DerivedGroup, deriveGroups } from "./topology/groups.ts";
export { EMPTY_MACHINE, type Machine } from "./topology/machine.ts";
export { type DomainPlacement, placeDomain, tablesHome } from "./topology/page-tables.ts";
export { type Translation, TranslationMap } from "./topology/translation.ts";
export {
  addressOf,
  type Gpa,
  type Hpa,
  hex,
  type Iova,
  parseSize,
  pfnOf,
  sizeText,
} from "./units.ts";
export { VfioDmaBuf } from "./vfio/device/dma-buf.ts";
export { type PciBar, RegionIndex, regionPage } from "./vfio/device/pci-bar.ts";
export { VfioPciDevice } from "./vfio/device/pci-device.ts";
export { VfioTask } from "./vfio/file.ts";
export { allReduceHost } from "./vfio/host/all-reduce-host.ts";
export { type Connection, connect, mapMemory } from "./vfio/host/connect.ts";
export { buildHost, type Host, type HostOptions } from "./vfio/host/host.ts";
export type { DevicePlan, HostPlan, NodePlan, UnitPlan } from "./vfio/host/host-plan.ts";
export { type PlanChoices, planOfMachine } from "./vfio/host/plan-of-machine.ts";
export { deviceAccess, readsByUnit, walkedNodes } from "./vfio/host/walks.ts";
export { Iommufd } from "./vfio/iommufd/iommufd.ts";
export { IommufdFile } from "./vfio/iommufd/iommufd-file.ts";
export { HwptFlag, MapFlag as IoasMapFlag } from "./vfio/iommufd/uapi.ts";
export { VfioCdev } from "./vfio/iommufd/vfio-cdev.ts";
export { FaultingHost, type FaultingHostOptions } from "./vfio/iopf/faulting-host.ts";
export { pinForFaults, unpinForFaults } from "./vfio/iopf/selective-pins.ts";
export { Type1Faulting } from "./vfio/iopf/type1-faulting.ts";
export { AddressSpace } from "./vfio/process/address-space.ts";
export {
  contiguousFrames,
  listedFrames,
  numaFrames,
  scatteredFrames,
} from "./vfio/process/frame-source.ts";
export { type FollowRules, followRules } from "./vfio/process/mappable-device.ts";
export { MemoryFile } from "./vfio/process/memory-file.ts";
export { UserProcess } from "./vfio/process/user-process.ts";
export { VfioExtension, VfioRequest } from "./vfio/requests.ts";
export { Type1Backend } from "./vfio/type1/backend.ts";
export { readDirty, switchDirtyTracking, type UserBitmap } from "./vfio/type1/dirty.ts";
export { accessMemory, type DmaAccess } from "./vfio/type1/dma-access.ts";
export { pinPages, registerDevice, unpinPages } from "./vfio/type1/external-pins.ts";
export { checkExtension } from "./vfio/type1/info.ts";
export { type1Ioctl } from "./vfio/type1/ioctl.ts";
export { type MapRequest, mapDma, mapRequest } from "./vfio/type1/map.ts";
export { Type1, type Type1Options } from "./vfio/type1/type1.ts";
export { type UnmapRequest, unmapDma, unmapRequest } from "./vfio/type1/unmap.ts";
export { type Capability, decodeChain } from "./vfio/uapi/capability-chain.ts";
export {
  DirtyFlag,
  DmaMap,
  DmaUnmap,
  MapFlag,
  Type1Info,
  Type1Request,
  UnmapFlag,
} from "./vfio/uapi/type1.ts";
export { UserBuffer, type UserMemory } from "./vfio/uapi/user-memory.ts";
export { Vfio } from "./vfio/vfio.ts";
export { VirtioBlk } from "./virtio/blk/device.ts";
export { VirtioIommuDevice } from "./virtio/iommu/device.ts";
export { IommuQueues } from "./virtio/iommu/device-queue.ts";
export { ViommuDriver } from "./virtio/iommu/driver.ts";
export { type LocalPair, startLocalPair } from "./virtio/iommu/driver-local.ts";
export { LINUX_6_4, LINUX_7_2, PROPOSAL_2023 } from "./virtio/iommu/driver-settings.ts";
export { IommuTlb } from "./virtio/iommu/iommu-tlb.ts";
export { VirtioIommu } from "./virtio/iommu/pci-device.ts";
export { TranslatedMemory } from "./virtio/iommu/translated-memory.ts";
export type { VirtioDevice } from "./virtio/pci/virtio-device.ts";
export { VirtioPci } from "./virtio/pci/virtio-pci.ts";
export { DeviceQueue } from "./virtio/virtqueue-device.ts";
export { DriverQueue } from "./virtio/virtqueue-driver.ts";
