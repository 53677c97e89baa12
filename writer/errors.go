package writer

import "github.com/keyhaul/keyhaul/internal/resp"

// action is what an error reply asks for (protocol §8).
type action uint8

// Actions, the more far-reaching the greater.
const (
	actNone  action = iota
	actData         // the entry itself is refused: on-error decides
	actWait         // try again later
	actSlot         // the slot is elsewhere, or on its way: what goes there waits, and nothing else
	actRoute        // the node is no primary any more
)

func classify(e *resp.Error) action {
	switch e.Code {
	case "LOADING", "BUSY", "MASTERDOWN", "NOREPLICAS", "MISCONF", "NOMASTERLINK", "OOM",
		"NOAUTH", "WRONGPASS", "NOPERM", "DENIED":
		return actWait
	case "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN":
		return actSlot
	case "READONLY", "REDIRECT":
		return actRoute
	}
	return actData
}

// remedy tells an operator what to do about an error that is waited for.
func remedy(e *resp.Error) string {
	switch e.Code {
	case "OOM":
		return "give the target more memory (maxmemory); keyhaul goes on by itself"
	case "MISCONF":
		return "the target cannot persist: look at its disk; keyhaul goes on by itself"
	case "NOREPLICAS":
		return "the target wants more replicas (min-replicas-to-write); keyhaul goes on by itself"
	case "NOAUTH", "WRONGPASS", "DENIED":
		return "correct the user or password of the target; keyhaul tries again"
	case "NOPERM":
		return "give the target's user this permission (ACL SETUSER); keyhaul tries again"
	case "BUSY":
		return "a script blocks the target: wait, or SCRIPT KILL there"
	}
	return "none needed: keyhaul goes on when the target does"
}
