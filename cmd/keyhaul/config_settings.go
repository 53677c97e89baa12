package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// kind is what a setting's text is read as.
type kind string

const (
	kindString   kind = "string"
	kindBool     kind = "bool"
	kindInt      kind = "int"
	kindDuration kind = "duration"
	kindBytes    kind = "size"
	kindEnum     kind = "word"
	kindList     kind = "list"
)

// setting is one thing that can be configured. Its flag is the key with dashes for dots, its environment variable
// KEYHAUL_ and the key in upper case with underscores.
type setting struct {
	key    string
	kind   kind
	value  string   // default
	words  []string // of an enum; "" where it may be empty
	alias  string   // a shorter flag
	secret bool     // its text appears in no message
	hidden bool     // not in --help
	of     string   // the only command that has a flag for it; "" for all
	usage  string
}

const annotationRequired = "keyhaul/required"

// settings is the one table of everything that can be configured.
func settings() []setting {
	return slices.Concat(endSettings("source", "read from"), endSettings("target", "write to"), haulSettings(), verifySettings())
}

// haulSettings are those of the haul itself.
func haulSettings() []setting {
	return []setting{
		{key: "source.prefer-replica", kind: kindBool, value: "false", usage: "read from a replica of the source, of those that its addresses or its sentinels name, and from the primary if there is none"},
		{key: "target.mode", kind: kindEnum, value: targetAuto, words: []string{targetAuto, targetStandalone}, usage: "`how` to take the target: auto asks it whether it is a cluster, standalone takes it for one server, such as a proxy"},
		{key: "target.release", kind: kindString, usage: "`release` that a resp:// file is written for, such as redis-6.2: values become plain commands (default RESTORE, which servers as new as the source take)"},
		{key: "name", kind: kindString, value: "default", usage: "`name` of this haul, of its state folder and its connections; letters, digits, - _ ."},
		{key: "state-dir", kind: kindString, usage: "`folder` for the spool and other state, or none for memory only (default $STATE_DIRECTORY, else keyhaul in the user's XDG state folder)"},
		{key: "http", kind: kindString, value: "127.0.0.1:9420", usage: "`address` of status and metrics; empty for none"},
		{key: "until", kind: kindEnum, words: []string{"", untilSnapshot, untilCaughtUp}, usage: "`when` to end by itself: snapshot or caught-up; never if empty (a daemon)"},
		{key: "aof-until", kind: kindString, usage: "`where` to stop in an append-only file: a unix time in seconds or one such as 2026-01-31T15:04:05Z (the file needs timestamps: aof-timestamp-enabled), or offset:BYTES; its end if empty"},
		{key: "existing", kind: kindEnum, value: existingFail, words: []string{existingFail, existingReplace, existingSkip, existingFlush}, usage: "`what` to do when the target holds keys and no checkpoint of this haul: fail, replace them, skip them (may diverge), or flush the target"},
		{key: "db-map", kind: kindList, usage: "`from=to` databases: where those of the source go that do not keep their number, or drop for nowhere, such as 1=0,2=5,3=drop; may be repeated"},
		{key: "delivery", kind: kindEnum, value: exactlyOnce, words: []string{exactlyOnce, atLeastOnce}, usage: "`guarantee` for commands that change something twice when repeated: exactly-once, or at-least-once, which is faster"},
		{key: "on-lost-history", kind: kindEnum, value: "fail", words: []string{"fail", "resync", "flush"}, usage: "`what` to do when the source no longer has the writes that follow: fail (exit code 5), resync (copy anew over the old copy, and remove what the source lacks), flush (empty the target and copy anew)"},
		{key: "expiry-mode", kind: kindEnum, value: expirySource, words: []string{expirySource, expiryTarget}, usage: "`which` server's clock decides on deadlines: source holds them back on the target until the haul is finished, target sets them at once"},
		{key: "expiry.grace", kind: kindDuration, value: "1h", usage: "with --expiry-mode=source: add this `time` to every deadline on the target until the haul is finished; not needed where the target has an import mode"},
		{key: "on-error", kind: kindEnum, words: []string{"", onErrorStop, onErrorHold, onErrorSkip}, usage: "`what` to do when the target refuses one entry for good: stop, hold (wait for the operator) or skip (default stop with --until, else hold)"},
		{key: "max-skipped", kind: kindInt, value: "1000", usage: "with --on-error=skip: stop after this `number` of skipped entries"},
		{key: "unsupported", kind: kindEnum, value: unsupportedFail, words: []string{unsupportedFail, unsupportedDrop, unsupportedDegrade}, usage: "`what` to do with what the target has no form for, such as deadlines of hash fields before Redis 7.4: fail (as --on-error decides), drop (leave the command or key out), or degrade (do it without); the last two list it in unsupported.log"},
		{key: "connect-deadline", kind: kindDuration, value: "0", usage: "give up with exit code 4 if source and target are not both ready within this `time`; 0 for never (default 1m0s with --until, else never)"},
		{key: "drain-deadline", kind: kindDuration, value: "8s", usage: "`time` that the first signal leaves for writing what was read"},
		{key: "dial-timeout", kind: kindDuration, value: "5s", usage: "`time` for opening one connection, TLS included"},
		{key: "reply-timeout", kind: kindDuration, value: "60s", usage: "`time` without any reply after which a connection is examined"},
		{key: "wait-replicas", kind: kindInt, value: "0", usage: "`number` of replicas of each target node that must have a write (WAIT) before it counts as applied"},
		{key: "open-slot-timeout", kind: kindDuration, value: "10m", usage: "fail when a slot of a target cluster that is being moved takes nothing for this `time`; warn after a tenth of it"},
		{key: "keepalive.enabled", kind: kindBool, value: "true", hidden: true, usage: "ping idle connections to the target"},
		{key: "keepalive.interval", kind: kindDuration, value: "0", usage: "`time` between pings on an idle connection to the target; 0 to tune it to the target's own timeout"},
		{key: "buffer.max-bytes", kind: kindBytes, value: "0", usage: "`size` of everything between reading and acknowledgement, in memory; 0 for the smaller of 128MiB and a quarter of the memory limit"},
		{key: "spool.max-bytes", kind: kindBytes, value: "0", usage: "`size` of the spool on disk at which reading pauses; 0 for the smaller of 50GiB and 80 % of the free disk"},
		{key: "spool.retain", kind: kindDuration, value: "60s", usage: "keep applied parts of the stream in the spool for this `time`"},
		{key: "spool.retain-bytes", kind: kindBytes, value: "1GiB", usage: "keep no more than this `size` of applied parts of the stream"},
		{key: "writer.snapshot-lanes", kind: kindInt, value: "0", usage: "`number` of connections to a standalone target that carry the snapshot; 0 for automatic"},
		{key: "writer.big-value-bytes", kind: kindBytes, value: "1MiB", usage: "`size` in the snapshot from which on a list, set, hash, sorted set or stream is written in pieces that do not block the target, and put in its place at the end; 0 for never"},
		{key: "ack", kind: kindEnum, value: ackAuto, words: []string{ackAuto, ackApplied, ackReceived}, usage: "`what` the source is told: the offset that is applied on the target, or the one received; auto is applied, but received for a Valkey cluster, where moving a slot waits for it"},
		{key: "source.max-snapshots", kind: kindInt, value: "4", usage: "`number` of shards of a cluster that are asked for their snapshots at once; on each host always one"},
		{key: "ready-max-lag", kind: kindDuration, value: "30s", usage: "/readyz says no when the lag exceeds this `time`"},
		{key: "log-level", kind: kindEnum, value: "info", words: []string{"trace", "debug", "info", "warn", "error"}, usage: "`level` of logs: trace, debug, info, warn or error"},
		{key: "log-format", kind: kindEnum, value: formatAuto, words: []string{formatAuto, formatConsole, formatJSON}, usage: "`format` of logs: console, json, or auto (console on a terminal)"},
		{key: "progress", kind: kindEnum, value: "auto", words: []string{"auto", "on", "off"}, usage: "`when` to show progress bars: on, off, or auto (on a terminal)"},
		{key: "summary-file", kind: kindString, usage: "write a JSON summary to this `file` at the end"},
		{key: "dry-run", kind: kindBool, value: "false", usage: "print the plan and exit without writing anything"},
	}
}

// endSettings are those of one end of the haul.
func endSettings(end, doing string) []setting {
	files := "or files: rdb:///path/dump.rdb (several separated by commas, patterns, gzip or zstd, rdb://- for standard input), aof:///path/appendonlydir"
	if end == "target" {
		files = "or a file: rdb:///path, resp:///path, jsonl:///path"
	}
	return []setting{
		{key: end + ".url", kind: kindString, alias: end, secret: true, usage: "`address` of the server or cluster to " + doing + ": redis://[user:password@]host:port, rediss:// for TLS, unix:///path, redis+sentinel://host:26379/name; several hosts separated by commas; " + files},
		{key: end + ".username", kind: kindString, secret: true, usage: "ACL `user` of the " + end},
		{key: end + ".password", kind: kindString, secret: true, usage: "`password` of the " + end + "; other users of this machine can see flags: prefer the environment or a password file"},
		{key: end + ".password-file", kind: kindString, usage: "`file` with the password of the " + end + ", read again at each connect"},
		{key: end + ".tls.ca", kind: kindString, usage: "PEM `file` of the authorities that verify the " + end + " (default the system's)"},
		{key: end + ".tls.cert", kind: kindString, usage: "PEM `file` with keyhaul's own certificate for the " + end},
		{key: end + ".tls.key", kind: kindString, usage: "PEM `file` with the key of that certificate"},
		{key: end + ".tls.server-name", kind: kindString, usage: "`name` in the certificate of the " + end + " (default the host that is dialled)"},
		{key: end + ".tls.insecure", kind: kindBool, value: "false", usage: "do not verify the certificate of the " + end},
		{key: end + ".address-map", kind: kindList, usage: "`announced=reachable` addresses of the " + end + "'s nodes (host:port=host:port or host=host), behind NAT or in containers; may be repeated"},
		{key: end + ".sentinel-username", kind: kindString, secret: true, usage: "ACL `user` of the sentinels of the " + end},
		{key: end + ".sentinel-password", kind: kindString, secret: true, usage: "`password` of the sentinels of the " + end},
		{key: end + ".sentinel-password-file", kind: kindString, usage: "`file` with the password of the sentinels of the " + end + ", read again at each connect"},
		{key: end + ".sentinel-tls", kind: kindBool, value: "false", usage: "connect to the sentinels of the " + end + " by TLS"},
		{key: end + ".sentinel-tls-ca", kind: kindString, usage: "PEM `file` of the authorities that verify these sentinels (default the system's)"},
		{key: end + ".sentinel-tls-cert", kind: kindString, usage: "PEM `file` with keyhaul's own certificate for these sentinels"},
		{key: end + ".sentinel-tls-key", kind: kindString, usage: "PEM `file` with the key of that certificate"},
		{key: end + ".sentinel-tls-server-name", kind: kindString, usage: "`name` in the certificates of these sentinels (default the host that is dialled)"},
		{key: end + ".sentinel-tls-insecure", kind: kindBool, value: "false", usage: "do not verify the certificates of these sentinels"},
	}
}

func key2flag(key string) string { return "--" + strings.ReplaceAll(key, ".", "-") }

func key2env(key string) string {
	return "KEYHAUL_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// shortFlag returns the alias of a key, or the key.
func shortFlag(key string) string {
	for _, s := range settings() {
		if s.key == key && s.alias != "" {
			return s.alias
		}
	}
	return key
}

// flagValue is the text of a flag; it is read and judged by loadConfig, together with everything else.
type flagValue struct {
	kind  kind
	texts []string
}

func (f *flagValue) String() string {
	if f == nil {
		return ""
	}
	return strings.Join(f.texts, ",")
}

func (f *flagValue) Type() string { return string(f.kind) }

func (f *flagValue) Set(text string) error {
	if f.kind == kindList {
		f.texts = append(f.texts, strings.Split(text, ",")...)
		return nil
	}
	f.texts = []string{text}
	return nil
}

// addSettings gives cmd a flag for each setting, and --config. Settings named in required must have a value.
func addSettings(cmd *cobra.Command, required ...string) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.String("config", "", "`file` with settings, TOML or YAML (KEYHAUL_CONFIG)")
	for _, s := range settings() {
		if s.of != "" && s.of != cmd.Name() {
			continue
		}
		name := strings.ReplaceAll(s.key, ".", "-")
		if s.alias != "" {
			addFlag(flags, s, s.alias)
			s.hidden = true
		}
		addFlag(flags, s, name)
	}
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[annotationRequired] = strings.Join(required, " ")
}

func addFlag(flags *pflag.FlagSet, s setting, name string) {
	v := &flagValue{kind: s.kind}
	if s.value != "" && s.value != "0" && s.value != "false" {
		v.texts = []string{s.value}
	}
	f := flags.VarPF(v, name, "", s.usage)
	f.Hidden = s.hidden
	if s.kind == kindBool {
		f.NoOptDefVal = "true"
	}
	if s.kind == kindList {
		v.texts = nil
	}
}

func requiredSettings(cmd *cobra.Command) []string {
	return strings.Fields(cmd.Annotations[annotationRequired])
}

// nearest returns the candidate that is closest to text by edit distance, or "" if none is close.
func nearest(text string, candidates []string) string {
	best, distance := "", len(text)/2+1
	for _, c := range candidates {
		if d := editDistance(text, c); d < distance {
			best, distance = c, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func settingKeys() []string {
	var keys []string
	for _, s := range settings() {
		keys = append(keys, s.key)
		if s.alias != "" {
			keys = append(keys, s.alias)
		}
	}
	slices.Sort(keys)
	return keys
}
