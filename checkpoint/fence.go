package checkpoint

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/haul"
)

// fenceVersion is the format of fences and marks that this program writes.
const fenceVersion = 1

// What was found on the target cannot be used.
var (
	// ErrLost says that the target does not know any more what was applied.
	ErrLost = errors.New("the target has lost what it knew of this haul")
	// ErrNewer says that a newer keyhaul wrote what was found. It is left untouched.
	ErrNewer = errors.New("written by a newer keyhaul")
)

// Fence is the value of a fence or a mark, a string of the form
//
//	1 <generation> <replid> <offset> <db> <sub>[ sparse]
//
// whose first number is the version of the format.
type Fence struct {
	Generation uint64
	At         haul.Position // where reading goes on
	Sub        int64         // bytes behind At.Offset that are applied already: pieces of a transaction too large to be kept whole
	Sparse     bool          // of a mark: the fences of this node are being written anew; a missing one means this position
}

// Applied returns the offset up to which everything is applied.
func (f Fence) Applied() int64 { return f.At.Offset + f.Sub }

// Append appends the text of f to dst. It does not allocate if dst has room.
func (f Fence) Append(dst []byte) []byte {
	dst = append(dst, '0'+fenceVersion, ' ')
	dst = strconv.AppendUint(dst, f.Generation, 10)
	dst = append(dst, ' ')
	dst = append(dst, f.At.ReplID...)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, f.At.Offset, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(f.At.DB), 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, f.Sub, 10)
	if f.Sparse {
		dst = append(dst, " sparse"...)
	}
	return dst
}

func (f Fence) text() string { return string(f.Append(nil)) }

// ParseFence reads the text of a fence or mark. The error is ErrNewer if its format is newer than this program.
func ParseFence(text string) (Fence, error) {
	version, rest, _ := strings.Cut(text, " ")
	switch v, err := strconv.ParseUint(version, 10, 31); {
	case err != nil || v == 0:
		return Fence{}, errors.New("fence: has no format version")
	case v > fenceVersion:
		return Fence{}, fmt.Errorf("fence of format %d: %w", v, ErrNewer)
	}
	fields := strings.Split(rest, " ")
	sparse := len(fields) == 6 && fields[5] == "sparse"
	if len(fields) != 5 && !sparse {
		return Fence{}, errors.New("fence: has a wrong number of fields")
	}
	f := Fence{Sparse: sparse, At: haul.Position{ReplID: fields[1]}}
	var errs [4]error
	var db int64
	f.Generation, errs[0] = strconv.ParseUint(fields[0], 10, 64)
	f.At.Offset, errs[1] = strconv.ParseInt(fields[2], 10, 64)
	db, errs[2] = strconv.ParseInt(fields[3], 10, 32)
	f.Sub, errs[3] = strconv.ParseInt(fields[4], 10, 64)
	f.At.DB, f.At.Generation = int32(db), f.Generation
	if errors.Join(errs[:]...) != nil || f.At.ReplID == "" || f.At.Offset < 0 || db < 0 || f.Sub < 0 {
		return Fence{}, errors.New("fence: a field is no number in its range")
	}
	return f, nil
}
