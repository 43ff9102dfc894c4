// Package runlog stores the log of one execution in an append-only file that
// survives kill -9 of its writer at any byte, can be followed by other
// processes while it grows, and never assigns one number to two texts.
//
// # Files
//
// An execution's folder contains
//
//	log          the output as numbered records; one writer, any number of readers
//	log.idx      a sparse index of log; can be rebuilt, never synced, always validated
//	log.zst      the sealed log: replaces the other two after the end
//	log.zst.tmp  an unfinished seal; removed by the next one
//
// All numbers are little endian; CRC is CRC-32C (Castagnoli).
//
// # log
//
// A header of 128 bytes:
//
//	 0  8  magic "AGLOG\r\n\x1a"
//	 8  4  version, 1
//	12  4  CRC of bytes 16 to 127
//	16  8  created, microseconds since 1970
//	24  8  reserved: no number above it was ever assigned
//	32  1  length of the boot id
//	33 63  boot id of the machine when numbers were last reserved
//	96 32  zero
//
// and then records, each a header of 40 bytes and its content:
//
//	 0  4  CRC of the rest of the record
//	 4  4  length of the content, at most MaxLine
//	 8  8  seq
//	16  8  time, microseconds since 1970
//	24  8  offset in the attempt's raw stream just after this record's bytes
//	32  4  attempt
//	36  1  stream: 1 stdout, 2 stderr, 3 system
//	37  1  flags: bits 0-1 part (0 whole, 1 first, 2 middle, 3 last), bit 2 no newline at the end
//	38  2  zero
//
// Seqs increase by one, except after a power failure (below). A reader treats
// an incomplete or invalid record as the current end, unless a valid one is
// known to follow it: then the log is damaged, which is an error. A writer only
// examines the records after the last index entry, so that it does not truncate
// a log at an old damage.
//
// # Numbers and power failures
//
// Before a number is used, the header on disk records that it may have been:
// the header is synced with a reserve of numbers, and the next sync is only
// needed when the reserve is used up. A graceful close sets reserved to the
// last number. After a crash of the writer alone, everything it wrote is still
// in the page cache, so the next writer continues with the last number plus
// one. After a power failure (the boot id differs and the log was not closed),
// lines that a reader has seen may be lost: the next number is then reserved
// plus one, and a system line contains the missing numbers and the reason.
//
// # log.idx
//
// A header of 32 bytes (magic "AGIDX\r\n\x1a", version, zero, created of the
// log, zero) and entries of 56 bytes, one for about every 64 KiB or 4,096 lines
// of log:
//
//	 0  4  CRC of the rest of the entry
//	 4  4  newest attempt that printed something before this record
//	 8  8  seq of the record at offset
//	16  8  offset in log
//	24  8  text before it: stdout and stderr with their newlines, in bytes
//	32  8  records before it
//	40  8  raw end of stdout of that attempt
//	48  8  raw end of stderr of that attempt
//
// # log.zst
//
// Independent zstd frames of about 256 KiB of log, split between records, so
// that `zstd -dc log.zst` restores the log file byte for byte. The first
// contains only the header and has no entry; a record larger than 256 KiB has
// its own frame. After them, in a skippable frame, there are entries as in
// log.idx, one per frame: attempt is the length of the frame's content, the
// last two numbers are the frame's offset and length in log.zst, offset is that
// in the log. Then 64 bytes:
//
//	 0  4  CRC of the rest
//	 4  4  version, 1
//	 8  8  number of entries
//	16  8  size of the log
//	24  8  last seq
//	32  8  size of the text
//	40  8  number of records
//	48  8  zero
//	56  8  magic "AGSEAL\r\n"
package runlog
