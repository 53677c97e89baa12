package command

// extra holds the writing commands of released servers that neither of those behind table.go has. Source: redis
// src/commands/*.json of the version named; TRIMSLOTS and XIDMPRECORD are meant for replicas only, and so is KeyDB's RREPLAY.
var extra = [...]Spec{
	// KeyDB: a command of an active replica, with where it came from; the reader takes it out
	{Name: "RREPLAY", Write: true, minArgs: 3},
	// 8.0, experimental: ordinary builds leave it out.
	{Name: "SFLUSH", Write: true, minArgs: 3},
	// 8.2
	{Name: "XACKDEL", Write: true, minArgs: 6, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "XDELEX", Write: true, minArgs: 5, keys: []keySpec{{span, 1, 0, 1}}},
	// 8.4
	{Name: "DELEX", Write: true, minArgs: 2, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "TRIMSLOTS", Write: true, minArgs: 5},
	// 8.6
	{Name: "XCFGSET", Write: true, minArgs: 2, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "XIDMPRECORD", Write: true, DenyOOM: true, minArgs: 5, keys: []keySpec{{span, 1, 0, 1}}},
	// 8.8
	{Name: "ARDEL", Write: true, minArgs: 3, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "ARDELRANGE", Write: true, minArgs: 4, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "ARINSERT", Write: true, DenyOOM: true, minArgs: 3, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "ARMSET", Write: true, DenyOOM: true, minArgs: 4, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "ARRING", Write: true, DenyOOM: true, minArgs: 4, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "ARSEEK", Write: true, minArgs: 3, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "ARSET", Write: true, DenyOOM: true, minArgs: 4, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "INCREX", Write: true, DenyOOM: true, minArgs: 2, keys: []keySpec{{span, 1, 0, 1}}},
	{Name: "XNACK", Write: true, minArgs: 7, keys: []keySpec{{span, 1, 0, 1}}},
}
