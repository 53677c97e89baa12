package command

// A shape says what matters of a command beyond the table that servers answer to COMMAND: whether it is safe to repeat,
// where its deadlines stand, whether it flushes. It is one byte in the Spec, for a stream asks it of every command.
type shape uint8

const (
	plain         shape = iota // repeated only behind a fence, no deadline
	repeatable                 // safe to repeat whatever its arguments are
	set                        // SET key value [options]
	zadd                       // ZADD key [options] score member …
	restore                    // RESTORE key ttl payload [options]
	restoreAsking              // the same for a slot that is being imported
	ttlSeconds                 // argument 2 is a time to live in seconds
	ttlMillis                  // argument 2 is a time to live in milliseconds
	atSeconds                  // argument 2 is a deadline in Unix seconds
	atMillis                   // argument 2 is a deadline in Unix milliseconds
	getex                      // GETEX key [options]
	msetex                     // MSETEX numkeys key value … [options]
	flushing                   // empties or swaps whole databases
	moving                     // MOVE key db
)

// shapes are those of all commands that are not plain. The table of COMMAND cannot tell them, so they are kept apart
// from what is generated, and written into the specs while the index is built.
var shapes = map[string]shape{
	"HSET": repeatable, "SADD": repeatable, "SETBIT": repeatable, "SETRANGE": repeatable,
	"MSET": repeatable, "DEL": repeatable, "UNLINK": repeatable,
	"SET": set, "ZADD": zadd, "RESTORE": restore, "RESTORE-ASKING": restoreAsking,
	"EXPIRE": ttlSeconds, "SETEX": ttlSeconds, "PEXPIRE": ttlMillis, "PSETEX": ttlMillis,
	"EXPIREAT": atSeconds, "PEXPIREAT": atMillis, "GETEX": getex, "MSETEX": msetex,
	"FLUSHALL": flushing, "FLUSHDB": flushing, "SWAPDB": flushing, "MOVE": moving,
}

// Flushes reports whether the command replaces all keys of a database at once: FLUSHALL, FLUSHDB, SWAPDB.
func (s *Spec) Flushes() bool { return s != nil && s.shape == flushing }
