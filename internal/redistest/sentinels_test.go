package redistest

import "testing"

func TestSentinelsPromote(t *testing.T) {
	primary, replica := Start(t, Options{}), Start(t, Options{})
	replica.ReplicaOf(primary)
	s := StartSentinels(t, primary, Options{Password: "of-the-sentinels"})
	primary.Kill()
	s.WaitPrimary(replica)
	if role := replica.Info("replication")["role"]; role != "master" {
		t.Errorf("the promoted server is a %s", role)
	}
}
