package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/internal/bus"
	"leadpipe/streams"
)

// A Right is something that a user has to be allowed: a subject to publish to.
type Right struct {
	Subject string
	For     string // "store webhooks"
}

// nothing is what rights are tried with: the API can't read it, and a stream refuses it
// since it is meant for another.
func nothing(subject string) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Data = []byte("check")
	m.Header.Set(jetstream.ExpectedStreamHeader, "none")
	return m
}

// CheckNATS connects as a user and tries its rights; then, over that connection, look
// says how far what is on the server is as declared.
func (n NATS) CheckNATS(ctx context.Context, user string, password Secret, urls string, rights []Right, look func(context.Context, jetstream.JetStream) []Finding) []Finding {
	opts := append([]nats.Option{nats.Name(user + " check"), nats.Timeout(5 * time.Second), nats.NoReconnect(), nats.CustomInboxPrefix(bus.InboxPrefix(user)),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}, n.Auth(user, password, urls)...) // LastError is asked instead
	if n.Creds != "" {
		opts = append(opts, nats.UserCredentials(n.Creds))
	}
	nc, err := nats.Connect(urls, opts...)
	switch {
	case errors.Is(err, nats.ErrAuthorization):
		return []Finding{Bad("set NATS_"+strings.ToUpper(user)+"_PASSWORD, or NATS_CREDS, to what the server has", "NATS: the server refuses the user %s", user)}
	case err != nil:
		return []Finding{Bad("start the server or the edge, and check NATS_URL", "NATS: %v", err)}
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return []Finding{Bad("check NATS_URL", "NATS: %v", err)}
	}
	out := []Finding{Good("NATS: %s answers to the user %s", nc.ConnectedServerName(), user)}
	var lacks []Finding
	for _, r := range rights {
		err := nc.PublishMsg(nothing(r.Subject))
		if err == nil {
			err = nc.FlushTimeout(5 * time.Second) // what is denied is said before the answer to this
		}
		if err != nil {
			return append(out, Bad("try again", "NATS: trying the rights: %v", err))
		}
		if last := nc.LastError(); errors.Is(last, nats.ErrPermissionViolation) && strings.Contains(last.Error(), `"`+r.Subject+`"`) {
			lacks = append(lacks, Bad("give it the rights of nats.conf", "NATS: the user %s may not %s (%s)", user, r.For, r.Subject))
		}
	}
	if len(lacks) > 0 {
		return append(out, lacks...)
	}
	out = append(out, Good("NATS: the user %s has its rights", user))
	return append(out, look(ctx, js)...)
}

// CheckPasswords warns of passwords that anyone can guess.
func (n NATS) CheckPasswords(urls string) []Finding {
	if n.Creds != "" {
		return []Finding{Good("NATS: logs in with NATS_CREDS")}
	}
	var unset []string
	for _, u := range []struct {
		name     string
		password Secret
	}{{"consumers", n.ConsumersPassword}, {"edge", n.EdgePassword}, {"operator", n.OperatorPassword}} {
		if u.password == "" || string(u.password) == u.name {
			unset = append(unset, "NATS_"+strings.ToUpper(u.name)+"_PASSWORD")
		}
	}
	if u, err := url.Parse(strings.Split(urls, ",")[0]); err == nil && u.User != nil {
		if p, _ := u.User.Password(); p != u.User.Username() {
			return []Finding{Good("NATS: logs in as NATS_URL says")}
		}
		unset = append(unset, "that in NATS_URL")
	}
	if len(unset) == 0 {
		return []Finding{Good("NATS: passwords are set")}
	}
	return []Finding{NotOn("set them before others can reach this machine", "NATS: development passwords, each its user's name: %s", strings.Join(unset, ", "))}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// CheckStreams tells what streams.Diff has found of those that are named. why is what an
// error may be for.
func CheckStreams(named, why string, drifts []streams.Drift, err error) []Finding {
	if err != nil {
		return []Finding{Bad(why, "streams: %v", err)}
	}
	if len(drifts) == 0 {
		return []Finding{Good("streams: %s as declared", named)}
	}
	var found []Finding
	for _, d := range drifts {
		if d.Missing {
			found = append(found, NotOn("the program creates it at its start", "streams: %s does not exist yet", d.Name))
			continue
		}
		found = append(found, Bad(fmt.Sprintf("run `%s`, or make streams-apply", d.Command), "streams: %s differs in %s", d.Name, strings.Join(d.Fields, ", ")))
	}
	return found
}
