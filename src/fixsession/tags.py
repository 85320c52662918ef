"""Tag numbers and message types that the session layer itself handles (FIX 4.4 volume 2)."""

from __future__ import annotations

BEGIN_SEQ_NO, BEGIN_STRING, BODY_LENGTH, CHECK_SUM = 7, 8, 9, 10
END_SEQ_NO, MSG_SEQ_NUM, MSG_TYPE, NEW_SEQ_NO = 16, 34, 35, 36
POSS_DUP, REF_SEQ_NUM, SENDER, SENDING_TIME, TARGET, TEXT = 43, 45, 49, 52, 56, 58
POSS_RESEND, ENCRYPT_METHOD, HEART_BT_INT, TEST_REQ_ID = 97, 98, 108, 112
ORIG_SENDING_TIME, GAP_FILL, RESET_SEQ_NUM = 122, 123, 141
LAST_PROCESSED, REF_TAG, REF_MSG_TYPE, REJECT_REASON, NEXT_EXPECTED = 369, 371, 372, 373, 789

HEARTBEAT, TEST_REQUEST, RESEND_REQUEST, REJECT, SEQUENCE_RESET, LOGOUT, LOGON = (
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "A",
)
SESSION_TYPES = frozenset({HEARTBEAT, TEST_REQUEST, RESEND_REQUEST, REJECT, SEQUENCE_RESET, LOGOUT, LOGON})

# Reasons of SessionRejectReason (373).
REQUIRED_MISSING, NO_VALUE, VALUE_INCORRECT = 1, 4, 5
COMP_ID_PROBLEM, SENDING_TIME_PROBLEM, OTHER = 9, 10, 99

# Written by the session on every message; whatever an application puts there is dropped.
OWNED = frozenset(
    {
        BEGIN_STRING,
        BODY_LENGTH,
        CHECK_SUM,
        MSG_SEQ_NUM,
        MSG_TYPE,
        POSS_DUP,
        SENDER,
        SENDING_TIME,
        TARGET,
        ORIG_SENDING_TIME,
        LAST_PROCESSED,
    }
)
# Optional fields of the standard header: they must stand before the body.
HEADER = frozenset(
    {50, 57, 90, 91, 97, 115, 116, 128, 129, 142, 143, 144, 145, 212, 213, 347, 627, 628, 629, 630}
)
SPECIAL = OWNED | HEADER

# Length field -> data field; a data field may hold the SOH delimiter.
DATA = {
    90: 91,
    93: 89,
    95: 96,
    212: 213,
    348: 349,
    350: 351,
    352: 353,
    354: 355,
    356: 357,
    358: 359,
    360: 361,
    362: 363,
    364: 365,
    445: 446,
    618: 619,
    621: 622,
}
