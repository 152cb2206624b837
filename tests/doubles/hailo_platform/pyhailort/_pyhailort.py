"""The C++ extension: status exceptions with a bare number, enumerations, small records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

# hailort.h, from 0 on
_NAMES = """
SUCCESS UNINITIALIZED INVALID_ARGUMENT OUT_OF_HOST_MEMORY TIMEOUT INSUFFICIENT_BUFFER INVALID_OPERATION NOT_IMPLEMENTED
INTERNAL_FAILURE DATA_ALIGNMENT_FAILURE CHUNK_TOO_LARGE INVALID_LOGGER_LEVEL CLOSE_FAILURE OPEN_FILE_FAILURE
FILE_OPERATION_FAILURE UNSUPPORTED_CONTROL_PROTOCOL_VERSION UNSUPPORTED_FW_VERSION INVALID_CONTROL_RESPONSE
FW_CONTROL_FAILURE ETH_FAILURE ETH_INTERFACE_NOT_FOUND ETH_RECV_FAILURE ETH_SEND_FAILURE INVALID_FIRMWARE
INVALID_CONTEXT_COUNT INVALID_FRAME INVALID_HEF PCIE_NOT_SUPPORTED_ON_PLATFORM INTERRUPTED_BY_SIGNAL
START_VDMA_CHANNEL_FAIL SYNC_VDMA_BUFFER_FAIL STOP_VDMA_CHANNEL_FAIL CLOSE_VDMA_CHANNEL_FAIL
ATR_TABLES_CONF_VALIDATION_FAIL EVENT_CREATE_FAIL READ_EVENT_FAIL DRIVER_OPERATION_FAILED INVALID_FIRMWARE_MAGIC
INVALID_FIRMWARE_CODE_SIZE INVALID_KEY_CERTIFICATE_SIZE INVALID_CONTENT_CERTIFICATE_SIZE
MISMATCHING_FIRMWARE_BUFFER_SIZES INVALID_FIRMWARE_CPU_ID CONTROL_RESPONSE_MD5_MISMATCH GET_CONTROL_RESPONSE_FAIL
GET_D2H_EVENT_MESSAGE_FAIL MUTEX_INIT_FAIL OUT_OF_DESCRIPTORS UNSUPPORTED_OPCODE USER_MODE_RATE_LIMITER_NOT_SUPPORTED
RATE_LIMIT_MAXIMUM_BANDWIDTH_EXCEEDED ANSI_TO_UTF16_CONVERSION_FAILED UTF16_TO_ANSI_CONVERSION_FAILED
UNEXPECTED_INTERFACE_INFO_FAILURE UNEXPECTED_ARP_TABLE_FAILURE MAC_ADDRESS_NOT_FOUND NO_IPV4_INTERFACES_FOUND
SHUTDOWN_EVENT_SIGNALED THREAD_ALREADY_ACTIVATED THREAD_NOT_ACTIVATED THREAD_NOT_JOINABLE NOT_FOUND
COMMUNICATION_CLOSED STREAM_ABORT DRIVER_NOT_INSTALLED NOT_AVAILABLE TRAFFIC_CONTROL_FAILURE INVALID_SECOND_STAGE
INVALID_PIPELINE NETWORK_GROUP_NOT_ACTIVATED VSTREAM_PIPELINE_NOT_ACTIVATED OUT_OF_FW_MEMORY STREAM_NOT_ACTIVATED
DEVICE_IN_USE OUT_OF_PHYSICAL_DEVICES INVALID_DEVICE_ARCHITECTURE INVALID_DRIVER_VERSION RPC_FAILED
INVALID_SERVICE_VERSION NOT_SUPPORTED NMS_BURST_INVALID_DATA OUT_OF_HOST_CMA_MEMORY QUEUE_IS_FULL
DMA_MAPPING_ALREADY_EXISTS CANT_MEET_BUFFER_REQUIREMENTS DRIVER_INVALID_RESPONSE DRIVER_INVALID_IOCTL DRIVER_TIMEOUT
DRIVER_INTERRUPTED CONNECTION_REFUSED DRIVER_WAIT_CANCELED HEF_FILE_CORRUPTED HEF_NOT_SUPPORTED
HEF_NOT_COMPATIBLE_WITH_DEVICE
"""
STATUS = _NAMES.split()


class HailoRTStatusException(Exception):
    """args[0] is the number, as text. The user gets it where pyhailort does not wrap it."""


class HailoRTCustomException(Exception):
    """A sentence instead of a number."""


class HailoRTException(Exception):
    """The extension's own class, not the one of the same name in Python."""


def status(code: int) -> HailoRTStatusException:
    """The exception of a status."""
    return HailoRTStatusException(str(code))


def get_status_message(code: int) -> str:
    """HAILO_TIMEOUT for 4."""
    return f"HAILO_{STATUS[code]}" if 0 <= code < len(STATUS) else ""


class SchedulingAlgorithm(Enum):
    """How several networks share a chip."""

    NONE = 0
    ROUND_ROBIN = 1


class FormatType(Enum):
    """Of the values in a user's buffer."""

    AUTO = 0
    UINT8 = 1
    UINT16 = 2
    FLOAT32 = 3


class FormatOrder(Enum):
    """Of the values in a user's buffer."""

    NHWC = 1
    FCR = 3
    F8CR = 4
    HAILO_NMS_BY_CLASS = 22
    HAILO_NMS_BY_SCORE = 23


class DeviceArchitecture(IntEnum):
    """The number that `identify` returns."""

    HAILO8_A0 = 0
    HAILO8 = 1
    HAILO8L = 2
    HAILO15H = 3
    HAILO15L = 4
    HAILO15M = 5
    HAILO10H = 6


@dataclass
class Format:
    """Type and order of a stream."""

    type: FormatType
    order: FormatOrder


@dataclass
class QuantInfo:
    """real = (code - qp_zp) * qp_scale; all zero where every feature has its own."""

    qp_zp: float = 0.0
    qp_scale: float = 0.0
    limvals_min: float = 0.0
    limvals_max: float = 0.0


@dataclass
class TemperatureInfo:
    """Of the two sensors, in degrees Celsius."""

    ts0_temperature: float
    ts1_temperature: float
    sample_count: int = 1


class VDeviceParams:
    """Fields and their types; in 4.x `default()` has no scheduler."""

    def __init__(self) -> None:
        self.device_ids: list[str] = []
        self.device_count = 1
        self._scheduling_algorithm = SchedulingAlgorithm.NONE
        self.group_id = "UNIQUE"
        self.multi_process_service = False

    @property
    def scheduling_algorithm(self) -> int:
        """A number when read, an enumeration when set, as in the real one."""
        return self._scheduling_algorithm.value

    @scheduling_algorithm.setter
    def scheduling_algorithm(self, value: SchedulingAlgorithm) -> None:
        if not isinstance(value, SchedulingAlgorithm):
            raise TypeError("(): incompatible function arguments: arg1 is not a SchedulingAlgorithm")
        self._scheduling_algorithm = value
