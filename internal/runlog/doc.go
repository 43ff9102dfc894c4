// Package runlog keeps the log of one execution in an append-only file that
// survives kill -9 of its writer at any byte, is followed by other processes
// while it grows, and never gives one number to two texts.
//
// # Files
//
// An execution's folder holds
//
//	log          what was printed, as numbered records; one writer, any number of readers
//	log.idx      a sparse index of log; can be rebuilt, never synced, never trusted unchecked
//	log.zst      the sealed log: replaces the other two after the end
//	log.zst.tmp  a seal that did not get to its end; removed by the next one
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
//	24  8  reserved: no number above it was ever given out
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
//	24  8  offset in the attempt's raw stream just behind this record's bytes
//	32  4  attempt
//	36  1  stream: 1 stdout, 2 stderr, 3 system
//	37  1  flags: bits 0-1 part (0 whole, 1 first, 2 middle, 3 last), bit 2 no newline at the end
//	38  2  zero
//
// Seqs grow by one, except behind a power cut (below). A reader takes an
// incomplete or invalid record as the end of what is there now, unless a good one
// is known to lie behind it: then the log is damaged, and that is an error. A
// writer looks at what lies behind the last index entry and no further, so it
// does not cut a log at an old damage.
//
// # Numbers and power cuts
//
// Before a number is used, the header on disk says that it may have been: the
// header is synced with a reserve of numbers, and only when that is used up is
// there another sync. A clean close sets reserved to the last number. After a
// crash of the writer alone everything it wrote is still in the page cache, so
// the next writer goes on with the last number plus one. After a power cut (the
// boot id differs and the log was not closed) lines that somebody saw may be
// gone: the next number is then reserved plus one, and a system line says which
// numbers are missing and why.
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
// Independent zstd frames of about 256 KiB of log, cut between records, so that
// `zstd -dc log.zst` gives the log file back byte for byte. The first holds the
// header alone and has no entry; a record larger than 256 KiB has a frame of its
// own. Behind them, in a
// skippable frame, entries as in log.idx, one a frame: attempt is the length of
// the frame's content, the last two numbers are the frame's offset and length in
// log.zst, offset is that in the log. Then 64 bytes:
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
