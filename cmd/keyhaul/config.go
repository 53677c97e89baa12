package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
	"github.com/keyhaul/keyhaul/reader"
	"github.com/keyhaul/keyhaul/writer"
)

// Values of settings that are compared elsewhere.
const (
	untilSnapshot = "snapshot"
	untilCaughtUp = "caught-up"

	existingFail    = "fail"
	existingReplace = "replace"
	existingSkip    = "skip"
	existingFlush   = "flush"

	onErrorStop = "stop"
	onErrorHold = "hold"
	onErrorSkip = "skip"

	unsupportedFail    = "fail"
	unsupportedDrop    = "drop"
	unsupportedDegrade = "degrade"

	exactlyOnce = "exactly-once"
	atLeastOnce = "at-least-once"

	expirySource = "source"
	expiryTarget = "target"

	targetAuto       = "auto"
	targetStandalone = "standalone"

	ackAuto     = "auto"
	ackApplied  = "applied"
	ackReceived = "received"

	formatAuto    = "auto"
	formatConsole = "console"
	formatJSON    = "json"
)

// config is what keyhaul runs with, after flags, environment, file and defaults. It holds secrets, in Source and
// Target, which print without them.
type config struct {
	Name     string
	StateDir string // parent of the haul's own folder; empty means memory only

	Source, Target end
	PreferReplica  bool        // read from a replica of the source
	TargetMode     string      // targetAuto or targetStandalone
	TargetRelease  rdb.Release // that a file of commands is written for; zero for the source's own

	HTTP         string // host:port; empty means no server
	HTTPExplicit bool   // chosen by the operator: a busy port is an error, not replaced

	Until           string // empty (a daemon), untilSnapshot or untilCaughtUp (one-shots)
	Existing        string // existingFail, existingReplace, existingSkip or existingFlush
	DBs             haul.DBMap
	Delivery        string // exactlyOnce or atLeastOnce
	OnLostHistory   string // fail, resync or flush
	ExpiryMode      string // expirySource or expiryTarget
	ExpiryGrace     time.Duration
	OnError         string // onErrorStop, onErrorHold or onErrorSkip
	OnErrorExplicit bool
	MaxSkipped      int
	Unsupported     string // unsupportedFail, unsupportedDrop or unsupportedDegrade
	Ack             string // ackAuto, ackApplied or ackReceived
	DryRun          bool
	ReadyMaxLag     time.Duration
	MaxSnapshots    int   // of a cluster's shards at once
	BigValue        int64 // bytes of a value of the snapshot that is written in pieces; 0 for never
	SnapshotLanes   int   // connections of the snapshot to each target node; 0 means automatic

	ConnectDeadline time.Duration // 0 means none
	DrainDeadline   time.Duration
	ReplyTimeout    time.Duration
	OpenSlotTimeout time.Duration

	WaitReplicas int // of each node of the target

	Keepalive keepaliveConfig
	Buffer    bufferConfig
	Spool     spoolConfig
	Verify    verifyConfig

	LogLevel    string // trace, debug, info, warn or error
	LogFormat   string // formatAuto, formatConsole or formatJSON
	Progress    string // auto, on or off
	SummaryFile string // empty means none
}

// end is one end of a haul as it was configured: a server or cluster, files that are read, or a file that is written.
type end struct {
	topology.Endpoint                    // zero for files, and where a command needs none
	Files             *reader.Files      // of a source; nil for a server
	Output            *writer.FileTarget // of a target; nil for a server
}

// String returns what the end is, never user or password.
func (e end) String() string {
	if e.Files != nil {
		return e.Files.String()
	}
	if e.Output != nil {
		return e.Output.String()
	}
	return e.Endpoint.String()
}

// GoString keeps secrets out of %#v.
func (e end) GoString() string { return "end(" + e.String() + ")" }

// OneShot tells whether the run ends by itself.
func (c config) OneShot() bool { return c.Until != "" }

// ackReceived tells whether the source is told what was received instead of what is applied. A Valkey cluster asks all its
// replicas when it moves a slot, for some seconds at most (protocol.md 1).
func (c config) ackReceived(source topology.Node) bool {
	return c.Ack == ackReceived || c.Ack == ackAuto && source.Cluster && source.Product == "valkey"
}

type keepaliveConfig struct {
	Enabled  bool
	Interval time.Duration // 0 means tuned to the target's timeout
}

type bufferConfig struct {
	MaxBytes int64 // never 0
}

type spoolConfig struct {
	MaxBytes    int64 // 0 means the smaller of 50 GiB and 80 % of the free disk
	Retain      time.Duration
	RetainBytes int64
}

// loadConfig settles every setting: flag over environment over file over default. environ is in the form of
// os.Environ. All mistakes are returned at once, as mistakes; none repeats a secret.
func loadConfig(cmd *cobra.Command, environ []string) (config, error) {
	env := environment(environ)
	r := &resolver{values: map[string]value{}, env: env}
	r.addDefaults()
	r.addFile(configFile(cmd, env))
	r.addEnvironment()
	r.addFlags(cmd)
	for _, key := range requiredSettings(cmd) {
		if r.values[key].text() == "" && !r.spoiled[key] {
			r.mistake(key, "", "is missing: give "+key2flag(shortFlag(key))+" or "+key2env(key))
		}
	}
	c := r.config()
	if len(r.mistakes) > 0 {
		return config{}, r.mistakes
	}
	return c, nil
}

func (r *resolver) config() config {
	c := config{
		Name:          r.name("name"),
		StateDir:      r.stateDir("state-dir"),
		Source:        r.source(),
		Target:        r.target(),
		PreferReplica: r.bool("source.prefer-replica"),
		TargetMode:    r.enum("target.mode"),
		TargetRelease: r.release("target.release"),
		HTTP:          r.listen("http"),
		HTTPExplicit:  r.explicit("http"),
		Until:         r.enum("until"),
		Existing:      r.enum("existing"),
		DBs:           r.databases("db-map"),
		Delivery:      r.enum("delivery"),
		OnLostHistory: r.enum("on-lost-history"),
		ExpiryMode:    r.enum("expiry-mode"),
		ExpiryGrace:   r.positive("expiry.grace"),
		OnError:       r.enum("on-error"),
		MaxSkipped:    r.int("max-skipped", 0, 1<<30),
		Unsupported:   r.enum("unsupported"),
		Ack:           r.enum("ack"),
		DryRun:        r.bool("dry-run"),
		ReadyMaxLag:   r.duration("ready-max-lag"),
		SnapshotLanes: r.int("writer.snapshot-lanes", 0, 64),
		BigValue:      r.bytes("writer.big-value-bytes", 0),
		MaxSnapshots:  r.int("source.max-snapshots", 1, 1000),

		ConnectDeadline: r.duration("connect-deadline"),
		DrainDeadline:   r.duration("drain-deadline"),
		ReplyTimeout:    r.positive("reply-timeout"),
		OpenSlotTimeout: r.positive("open-slot-timeout"),

		WaitReplicas: r.int("wait-replicas", 0, 100),

		Keepalive: keepaliveConfig{Enabled: r.bool("keepalive.enabled"), Interval: r.duration("keepalive.interval")},
		Buffer:    bufferConfig{MaxBytes: r.bytes("buffer.max-bytes", 1<<20)},
		Spool: spoolConfig{
			MaxBytes:    r.bytes("spool.max-bytes", 1<<20),
			Retain:      r.duration("spool.retain"),
			RetainBytes: r.bytes("spool.retain-bytes", 0),
		},
		Verify: r.verify(),

		LogLevel:    r.enum("log-level"),
		LogFormat:   r.enum("log-format"),
		Progress:    r.enum("progress"),
		SummaryFile: r.values["summary-file"].text(),
	}
	timeout := r.positive("dial-timeout")
	c.Source.DialTimeout, c.Target.DialTimeout = timeout, timeout
	r.adapt(&c)
	return c
}

// adapt fills in the defaults that depend on the kind of run or on the machine.
func (r *resolver) adapt(c *config) {
	if c.Source.Files != nil && c.Until == "" { // a file ends by itself
		c.Until = untilCaughtUp
	}
	if c.Target.Output != nil {
		r.output(c)
	}
	c.OnErrorExplicit = c.OnError != ""
	if c.OnError == "" {
		c.OnError = onErrorHold
		if c.OneShot() {
			c.OnError = onErrorStop
		}
	}
	if !r.explicit("connect-deadline") && c.OneShot() {
		c.ConnectDeadline = time.Minute
	}
	if c.Buffer.MaxBytes == 0 {
		c.Buffer.MaxBytes = defaultBuffer(memoryLimit("/"))
	}
}
