package inproc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/internal/bus/inproc"
	"leadpipe/internal/natstest"
)

// deniedBy runs an action as a user and says whether the server denied it.
func deniedBy(t *testing.T, s *natstest.Server, user string, act func(nc *nats.Conn, js jetstream.JetStream) error) bool {
	t.Helper()
	nc := s.Connect(user)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(300*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	err = act(nc, js)
	if ferr := nc.FlushTimeout(5 * time.Second); ferr != nil {
		t.Fatal(ferr)
	}
	if errors.Is(nc.LastError(), nats.ErrPermissionViolation) {
		return true
	}
	if err != nil {
		t.Fatalf("as %s: %v, though nothing was denied", user, err)
	}
	return false
}

func TestLeastRights(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	publish := func(subject string) func(*nats.Conn, jetstream.JetStream) error {
		return func(nc *nats.Conn, _ jetstream.JetStream) error { return nc.Publish(subject, []byte("{}")) }
	}
	request := func(subject, body string) func(*nats.Conn, jetstream.JetStream) error {
		return func(nc *nats.Conn, _ jetstream.JetStream) error {
			_, err := nc.Request(subject, []byte(body), 500*time.Millisecond)
			return err
		}
	}
	subscribe := func(subject string) func(*nats.Conn, jetstream.JetStream) error {
		return func(nc *nats.Conn, _ jetstream.JetStream) error { _, err := nc.SubscribeSync(subject); return err }
	}
	for _, tt := range []struct {
		what string
		act  func(*nats.Conn, jetstream.JetStream) error
		may  string // the users that may
	}{
		{"store a webhook", publish("webhooks.stripe.invoice.paid"), "edge operator"},
		{"ask for the stream's info", request("$JS.API.STREAM.INFO.WEBHOOKS", ""), "edge consumers operator"},
		{"change the state", publish("$KV.crm.lead.1"), "consumers operator"},
		{"change another bucket", publish("$KV.other.1"), "operator"},
		{"publish anything else", publish("anything"), "operator"},
		{"listen to webhooks", subscribe("webhooks.>"), "operator"},
		{"listen to state changes", subscribe("$KV.crm.>"), "operator"},
		{"listen to everything", subscribe(">"), "operator"},
		{"listen to the API", subscribe("$JS.API.>"), "operator"},
		{"read state directly", request("$JS.API.DIRECT.GET.KV_crm.$KV.crm.lead.1", ""), "consumers operator"},
		{"read webhooks directly", request("$JS.API.DIRECT.GET.WEBHOOKS.webhooks.stripe.invoice.paid", ""), "operator"},
		{"ask the leader for a webhook", request("$JS.API.STREAM.MSG.GET.WEBHOOKS", `{"seq":1}`), "consumers operator"},
		{"list streams", request("$JS.API.STREAM.NAMES", ""), "operator"},
		{"create the stream of webhooks", request("$JS.API.STREAM.CREATE.WEBHOOKS", `{}`), "edge consumers operator"},
		{"ask about the state", request("$JS.API.STREAM.INFO.KV_crm", ""), "consumers operator"},
		{"create a consumer of webhooks", request("$JS.API.CONSUMER.CREATE.WEBHOOKS.x", `{}`), "consumers operator"},
		{"create a consumer of the state", request("$JS.API.CONSUMER.CREATE.KV_crm.x", `{}`), "consumers operator"},
		{"create an unnamed consumer", request("$JS.API.CONSUMER.CREATE.WEBHOOKS", `{}`), "operator"},
		{"create a durable the old way", request("$JS.API.CONSUMER.DURABLE.CREATE.WEBHOOKS.x", `{}`), "operator"},
		{"take changes of the state", request("$JS.API.CONSUMER.MSG.NEXT.KV_crm.sheets", `{"batch":1,"no_wait":true}`), "consumers operator"},
		{"pause a durable", request("$JS.API.CONSUMER.PAUSE.WEBHOOKS.billing", `{}`), "operator"},
		{"restore a stream", request("$JS.API.STREAM.RESTORE.MINE", `{}`), "operator"},
		{"take a stream's snapshot", request("$JS.API.STREAM.SNAPSHOT.KV_crm", `{}`), "operator"},
		{"read the state through its leader", request("$JS.API.STREAM.MSG.GET.KV_crm", `{"seq":1}`), "operator"},
		{"listen to what answers hold", subscribe("_INBOX.>"), "operator"},
		{"listen to answers of one token", subscribe("_INBOX.*"), "operator"},
		{"listen to any user's answers", subscribe("_INBOX.*.>"), "operator"},
		{"listen to all that is three tokens long", subscribe("*.*.*"), "operator"},
		{"listen to the edge's answers", subscribe("_INBOX.edge.>"), "edge operator"},
		{"listen to the edge's answers in a group", subscribe("*.edge.>"), "operator"},
		{"listen to the consumers' answers", subscribe("_INBOX.consumers.>"), "consumers operator"},
		{"listen to one answer of the consumers", subscribe("_INBOX.consumers.*.*"), "consumers operator"},
		{"listen to the operator's answers", subscribe("_INBOX.JQ4oTr7Xy0mZ1vQ2bN3cD4.*"), "operator"},
		{"answer the consumers", publish("_INBOX.consumers.x.1"), "operator"},
		{"answer the edge", publish("_INBOX.edge.x.1"), "operator"},
		{"listen to advisories", subscribe("$JS.EVENT.>"), "operator"},
		{"listen to acknowledgements", subscribe("$JS.ACK.>"), "operator"},
		{"listen to the server", subscribe("$SYS.>"), "operator"},
		{"create a missing stream", request("$JS.API.STREAM.CREATE.KV_crm", `{}`), "consumers operator"},
		{"create a stream of its own", request("$JS.API.STREAM.CREATE.MINE", `{}`), "operator"},
		{"change a stream", request("$JS.API.STREAM.UPDATE.WEBHOOKS", `{}`), "operator"},
		{"purge webhooks", request("$JS.API.STREAM.PURGE.WEBHOOKS", `{"filter":"none"}`), "operator"},
		{"purge the state", request("$JS.API.STREAM.PURGE.KV_crm", `{"filter":"none"}`), "operator"},
		{"delete a webhook", request("$JS.API.STREAM.MSG.DELETE.WEBHOOKS", `{"seq":99}`), "operator"},
		{"delete a stream", request("$JS.API.STREAM.DELETE.NONE", ""), "operator"},
		{"delete a durable", request("$JS.API.CONSUMER.DELETE.WEBHOOKS.none", ""), "operator"},
		{"reset a durable", request("$JS.API.CONSUMER.RESET.WEBHOOKS.optouts", `{}`), "operator"},
		{"take messages of a durable", request("$JS.API.CONSUMER.MSG.NEXT.WEBHOOKS.billing", `{"batch":1,"no_wait":true}`), "consumers operator"},
		{"ask about a durable", request("$JS.API.CONSUMER.INFO.WEBHOOKS.billing", ""), "consumers operator"},
		{"settle a message", publish("$JS.ACK.WEBHOOKS.billing.1.1.1.1.1"), "consumers operator"},
	} {
		for _, user := range []string{"edge", "consumers", "operator"} {
			t.Run(user+" "+tt.what, func(t *testing.T) {
				t.Parallel()
				want := !strings.Contains(tt.may, user)
				if got := deniedBy(t, s, user, tt.act); got != want {
					t.Errorf("denied: %v, want %v", got, want)
				}
			})
		}
	}
}

// What the consumers read stays theirs: the same read, and each other user's attempt at
// hearing the answer.
func TestAnswersReachWhoAskedAlone(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	if _, err := s.JetStream("consumers").Publish(t.Context(), "$KV.crm.lead.1", []byte(`{"phone":"+33639980000"}`)); err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 100)
	hear := func(user, subject string) *nats.Conn {
		nc := s.Connect(user)
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { heard <- user + " on " + m.Subject }); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		return nc
	}
	conns := []*nats.Conn{hear("edge", "_INBOX.>"), hear("edge", "_INBOX.consumers.>"), hear("edge", ">"), hear("edge", "_INBOX.edge.>")}
	read := func(user string) {
		kv, err := s.JetStream(user).KeyValue(t.Context(), "crm")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Get(t.Context(), "lead.1"); err != nil {
			t.Fatal(err)
		}
		w, err := kv.WatchAll(t.Context()) // a consumer that delivers to the inbox
		if err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-w.Updates():
			if e == nil || e.Key() != "lead.1" {
				t.Errorf("%s watches and sees %v", user, e)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s watches and sees nothing", user)
		}
		if err := w.Stop(); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	read("consumers")
	read("operator")
	for _, nc := range conns {
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case what := <-heard:
		t.Error("heard:", what)
	default:
	}
	// The consumers can't hear the operator either; the operator hears all, as a proof that there was something.
	hear("consumers", "_INBOX.>")
	hear("operator", "_INBOX.consumers.>")
	read("operator")
	select {
	case what := <-heard:
		t.Error("heard:", what)
	default:
	}
	read("consumers")
	select {
	case <-heard:
	case <-time.After(30 * time.Second):
		t.Error("the operator heard nothing, so this test hears nothing")
	}
}

func TestWrongPasswordAndUnknownUserAreRefused(t *testing.T) {
	t.Parallel()
	s := natstest.New(t, natstest.Bare)
	for _, user := range []string{"edge:wrong", "nobody:nobody", "operator:"} {
		url := strings.Replace(s.Nodes[0].URL(), "nats://", "nats://"+user+"@", 1)
		if nc, err := nats.Connect(url); !errors.Is(err, nats.ErrAuthorization) {
			nc.Close()
			t.Errorf("%s: %v", user, err)
		}
	}
	if nc, err := nats.Connect(s.Nodes[0].URL()); !errors.Is(err, nats.ErrAuthorization) {
		nc.Close()
		t.Errorf("without a user: %v", err)
	}
}

func TestDevelopmentPasswordsOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	conf, err := os.ReadFile(natstest.Root(t, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]error{"0.0.0.0": inproc.ErrDevelopmentPasswords, "localhost": nil} {
		file := t.TempDir() + "/nats.conf"
		changed := strings.Replace(string(conf), "host: 127.0.0.1", "host: "+host, 1)
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := inproc.Start(t.Context(), inproc.Options{ConfigFile: file, StoreDir: t.TempDir(), Port: -1})
		if !errors.Is(err, want) {
			t.Errorf("listening on %s: %v, want %v", host, err, want)
		}
		if err == nil {
			s.Stop()
		}
	}
}

func TestTheConfigurationFsyncsAndKeepsMonitoringOnLoopback(t *testing.T) {
	for _, variable := range []string{"NATS_EDGE_PASSWORD", "NATS_CONSUMERS_PASSWORD", "NATS_OPERATOR_PASSWORD"} {
		t.Setenv(variable, "p") // the file itself has no default
	}
	s := natstest.New(t, natstest.Bare)
	o := &server.Options{}
	if err := o.ProcessConfigFile(natstest.Root(t, "nats.conf")); err != nil {
		t.Fatal(err)
	}
	if !o.SyncAlways {
		t.Error("an acknowledged message may be lost: sync_interval is not always")
	}
	if o.HTTPHost != "127.0.0.1" || o.HTTPPort != 8222 {
		t.Errorf("monitoring on %s:%d", o.HTTPHost, o.HTTPPort)
	}
	if o.MaxPayload < 6<<20 {
		t.Errorf("max_payload %d: a form of 1 MiB may not fit as JSON", o.MaxPayload)
	}
	if !s.Nodes[0].Server().JetStreamConfig().SyncAlways {
		t.Error("the in-process server does not sync")
	}
}

// Whatever a password looks like, it is one, and no error shows it.
func TestAnyPasswordWorks(t *testing.T) {
	for _, password := range []string{"12345", "5k", "true", "2026-11-24T00:00:00Z", "$topsecret", "abc def", "a,b;c", "pa'ss#\"word", "abc}", "a:b@c/d?e%f"} {
		t.Setenv("NATS_EDGE_PASSWORD", password)
		s, err := inproc.Start(t.Context(), inproc.Options{ConfigFile: natstest.Root(t, "nats.conf"), StoreDir: t.TempDir(), Port: -1})
		if err != nil {
			t.Fatalf("%q: %v", password, err)
		}
		for how, connect := range map[string]func() (*nats.Conn, error){
			"by URL":     func() (*nats.Conn, error) { return nats.Connect(s.UserURL("edge")) },
			"in-process": func() (*nats.Conn, error) { return nats.Connect(s.URL(), s.InProcess("edge")...) },
			"over TCP":   func() (*nats.Conn, error) { return nats.Connect(s.URL(), nats.UserInfo("edge", password)) },
		} {
			nc, err := connect()
			if err != nil {
				t.Errorf("%q %s: %v", password, how, err)
				continue
			}
			nc.Close()
		}
		if nc, err := nats.Connect(s.URL(), nats.UserInfo("edge", "stand-in")); !errors.Is(err, nats.ErrAuthorization) {
			nc.Close()
			t.Errorf("another password: %v", err)
		}
		s.Stop()
	}
	hash := "$2a$11$" + strings.Repeat("a", 53)
	t.Setenv("NATS_EDGE_PASSWORD", hash)
	if _, err := inproc.Start(t.Context(), inproc.Options{ConfigFile: natstest.Root(t, "nats.conf"), StoreDir: t.TempDir(), Port: -1}); err == nil ||
		!strings.HasPrefix(err.Error(), "NATS_EDGE_PASSWORD: ") || strings.Contains(err.Error(), hash) {
		t.Errorf("a bcrypt hash: %v", err)
	}
}

// What can't be right ends the start at once, and names its variable.
func TestUnusableFilesEndTheStart(t *testing.T) {
	t.Parallel()
	conf := natstest.Root(t, "nats.conf")
	empty := t.TempDir() + "/empty.conf"
	if err := os.WriteFile(empty, []byte("port: 4222\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		o    inproc.Options
		want string
	}{
		"store is a file": {inproc.Options{ConfigFile: conf, StoreDir: empty, Port: -1}, "NATS_STORE_DIR: "},
		"no such file":    {inproc.Options{ConfigFile: empty + "x", StoreDir: t.TempDir(), Port: -1}, "NATS_CONF: "},
		"no users":        {inproc.Options{ConfigFile: empty, StoreDir: t.TempDir(), Port: -1}, "NATS_CONF: "},
	} {
		start := time.Now()
		_, err := inproc.Start(t.Context(), tt.o)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || time.Since(start) > 30*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(start))
		}
	}
}

func TestPortInUseIsOneClearLine(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = inproc.Start(t.Context(), inproc.Options{ConfigFile: natstest.Root(t, "nats.conf"), StoreDir: t.TempDir(), Port: l.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "NATS_URL") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error: %v", err)
	}
}

// What was acknowledged is there after the server was stopped and started again.
func TestRestartKeepsWhatWasStored(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	js := s.JetStream("edge")
	for i := range 20 {
		if _, err := js.Publish(t.Context(), "webhooks.stripe.x", []byte("{}"), jetstream.WithMsgID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	s.Nodes[0].Stop()
	s.Start(0)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := s.JetStream("operator").Stream(ctx, "WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Msgs; got != 20 {
		t.Errorf("%d messages after the restart, want 20", got)
	}
}
