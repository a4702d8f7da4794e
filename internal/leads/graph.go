package leads

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/internal/outcome"
)

const (
	// graphTimeout bounds one call. Graph answers a lead within a second or so.
	graphTimeout = 15 * time.Second
	// maxAnswer is the most that is read of an answer. A form of a dozen questions,
	// each answered with 10,000 escaped characters, stays below it.
	maxAnswer = 2 << 20
	// leadFields are what we ask for. Consent check boxes are not among field_data.
	// https://developers.facebook.com/docs/marketing-api/reference/user-lead-gen-info
	leadFields = "id,created_time,ad_id,campaign_id,form_id,platform,field_data,custom_disclaimer_responses"
	// leastFields leave out what takes rights on the ad account, which is no reason to go
	// without the form. https://developers.facebook.com/docs/marketing-api/guides/lead-ads/retrieving
	leastFields = "id,created_time,form_id,field_data,custom_disclaimer_responses"
)

// What to do about some refusals.
const (
	forbidden = "the token may not read it; grant the permission leads_retrieval and, in Leads Access Manager, access to this app"
	misused   = "all our calls are refused; check FACEBOOK_GRAPH_URL and that the first FACEBOOK_APP_SECRET is the app's"
)

// GraphOptions say which Graph API to ask, and as whom.
type GraphOptions struct {
	URL       string // with the version: https://graph.facebook.com/v26.0
	Token     string // page access token
	AppSecret string // signs the token (appsecret_proof); empty: calls carry no proof

	Timeout   time.Duration         // of one call; 0: 15 s
	Metrics   prometheus.Registerer // may be nil
	Transport http.RoundTripper     // nil: one of its own
	Now       func() time.Time      // nil: time.Now
}

// Graph reads leads from Meta's Graph API. It is safe for concurrent use. After an
// answer that names a rate limit it makes no call until the limit is over; while all calls
// are refused it makes one now and then.
type Graph struct {
	base, token, proof string
	http               *http.Client
	now                func() time.Time
	calls              *prometheus.CounterVec

	places, again chan struct{} // one for each call under way

	mu    sync.Mutex
	hold  time.Time     // no call before
	why   error         // the refusal of all calls, by which hold is set; nil: a rate limit
	pause time.Duration // between two tries, while there is a why
}

// NewGraph makes a client; it makes no call. An error says which option can't be right.
func NewGraph(opt GraphOptions) (*Graph, error) {
	u, err := url.Parse(opt.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" {
		return nil, errors.New("graph: the URL must be http(s)://host/version")
	}
	if opt.Token == "" {
		return nil, errors.New("graph: the page access token is missing")
	}
	g := &Graph{
		base: strings.TrimRight(opt.URL, "/"), token: opt.Token, now: opt.Now,
		places: make(chan struct{}, mostCalls), again: make(chan struct{}, mostAgain),
		http: &http.Client{
			Timeout:   cmp.Or(opt.Timeout, graphTimeout),
			Transport: opt.Transport,
			// The token must not follow a redirect to somewhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "leads_graph_calls_total", Help: "Reads of a lead from the Graph API, by result: ok or the reason of the failure."}, []string{"result"}),
	}
	if g.now == nil {
		g.now = time.Now
	}
	if g.http.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConns, t.MaxIdleConnsPerHost = mostCalls, mostCalls
		g.http.Transport = t
	}
	if opt.AppSecret != "" {
		// https://developers.facebook.com/docs/graph-api/guides/secure-requests
		mac := hmac.New(sha256.New, []byte(opt.AppSecret))
		mac.Write([]byte(opt.Token))
		g.proof = hex.EncodeToString(mac.Sum(nil))
	}
	if opt.Metrics != nil {
		opt.Metrics.MustRegister(g.calls)
	}
	return g, nil
}

// Close lets go of idle connections.
func (g *Graph) Close() { g.http.CloseIdleConnections() }

// A form is what Graph knows of a lead.
type form struct {
	ID          scalar `json:"id"`
	CreatedTime scalar `json:"created_time"` // 2026-11-23T08:30:00+0000
	AdID        scalar `json:"ad_id"`
	CampaignID  scalar `json:"campaign_id"`
	FormID      scalar `json:"form_id"`
	Platform    scalar `json:"platform"` // fb, ig
	Fields      []struct {
		Name   scalar   `json:"name"`
		Values []scalar `json:"values"`
	} `json:"field_data"`
	Disclaimers []struct {
		Key     scalar `json:"checkbox_key"`
		Checked scalar `json:"is_checked"` // "1" or ""
	} `json:"custom_disclaimer_responses"`
}

// lead reads one lead; again: it was asked for before, so that what is asked for the first
// time goes first. Its errors are outcomes: permanent "unknown" for a lead that Graph does
// not show, which may be too early rather than wrong; one that is errPermission for a lead
// without its answers; else as judge says. None of them holds the token, its proof, or
// anything that Graph wrote in words: its messages may quote the token.
func (g *Graph) lead(ctx context.Context, id string, again bool) (form, error) {
	leave, err := g.enter(ctx, again)
	if err != nil {
		return form{}, err
	}
	defer leave()
	f, err := g.counted(ctx, id, leadFields)
	if r := (*refusal)(nil); errors.As(err, &r) && r.aboutFields() {
		// Perhaps it is only that the token may not read of ads, or that this version of
		// the API has not all the fields.
		f, err = g.counted(ctx, id, leastFields)
	}
	return f, err
}

func (g *Graph) counted(ctx context.Context, id, fields string) (form, error) {
	trial, err := g.held()
	if err != nil {
		return form{}, err
	}
	f, err := g.read(ctx, id, fields)
	g.heard(trial, err)
	result := "ok"
	if err != nil {
		result = string(outcome.Of(err).Reason)
	}
	g.calls.WithLabelValues(result).Inc()
	return f, err
}

func (g *Graph) read(ctx context.Context, id, fields string) (form, error) {
	resp, body, err := g.get(ctx, url.PathEscape(id), url.Values{"fields": {fields}}, g.token)
	if err != nil {
		return form{}, err
	}
	if len(body) > maxAnswer {
		return form{}, outcome.Permanentf(outcome.Malformed, "the answer for the lead is longer than %d bytes", maxAnswer)
	}
	var answer struct {
		form
		Error struct {
			Message string `json:"message"`
			Code    int    `json:"code"`
			Subcode int    `json:"error_subcode"`
		} `json:"error"`
	}
	unreadable := json.Unmarshal(body, &answer)
	regain := regainAccess(resp.Header)
	if e := answer.Error; resp.StatusCode != http.StatusOK || e.Code != 0 {
		kind, reason, advice := judge(resp.StatusCode, e.Code, e.Message)
		failure := &outcome.Error{Kind: kind, Reason: reason, Err: &refusal{resp.StatusCode, e.Code, e.Subcode, advice}}
		if reason == outcome.RateLimited {
			failure.After = g.holdFor(max(regain, time.Minute))
		}
		return form{}, failure
	}
	g.holdFor(regain) // this was the last call that the limit allowed
	switch {
	case unreadable != nil:
		return form{}, outcome.Temporary(outcome.Malformed, errors.New("the answer for the lead is not readable"))
	case string(answer.ID) != id:
		return form{}, outcome.Temporary(outcome.Malformed, errors.New("the answer is about another lead"))
	case answer.Fields == nil:
		return form{}, outcome.Permanent(outcome.Refused, fmt.Errorf("the lead came without its answers (field_data): %w", errPermission))
	}
	return answer.form, nil
}

// get makes one call as a token and gives the answer, whose body is one byte longer than
// maxAnswer where it was too long. An error is its outcome.
func (g *Graph) get(ctx context.Context, path string, query url.Values, token string) (*http.Response, []byte, error) {
	if g.proof != "" && token == g.token {
		query.Set("appsecret_proof", g.proof)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.base+"/"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, nil, outcome.Permanentf(outcome.Malformed, "building a call to Graph")
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := g.http.Do(req)
	if err != nil {
		return nil, nil, unanswered(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, nil, unanswered(err)
	}
	return resp, body, nil
}

// A refusal is Graph's answer in place of a lead.
type refusal struct {
	status, code, subcode int
	advice                string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("reading the lead from Graph: %s (HTTP %d, code %d, subcode %d)", r.advice, r.status, r.code, r.subcode)
}

// Is tells errPermission from other refusals.
func (r *refusal) Is(target error) bool { return target == errPermission && r.permission() }

// permission is about what the token may do: https://developers.facebook.com/docs/graph-api/guides/error-handling
func (r *refusal) permission() bool { return r.code == 10 || r.code >= 200 && r.code <= 299 }

// aboutFields says whether the lead might be shown to a call that asks for less.
func (r *refusal) aboutFields() bool { return r.permission() || r.code == 100 && r.subcode != 33 }

// errPermission is that of a token which may not read the answers of a lead.
var errPermission = errors.New(forbidden)

// judge sorts Graph's refusals. code is 0 where the answer had none, and then the HTTP
// status decides. Nearly all errors come with status 400.
//
//	temporary  1 2 (Graph's trouble) · 4 17 32 341 613 80000–80014 (too many calls) ·
//	           368 (blocked for a while) · 5xx · 429 · whatever is not listed
//	permanent  10 200–299 (the token may not read this lead) · 100 803 (no such lead, or
//	           none for this token)
//	blocked    102 104 190 401 (the token) · 3 12 2500 2635 3xx 404 405 (all calls of this
//	           form: version, path)
//
// https://developers.facebook.com/docs/graph-api/guides/error-handling
func judge(status, code int, message string) (outcome.Kind, outcome.Reason, string) {
	switch {
	case code == 190 || code == 102 || code == 104:
		return outcome.KindBlocked, outcome.Auth, "the token is refused; renew FACEBOOK_PAGE_ACCESS_TOKEN and restart consumers"
	case code == 4 || code == 17 || code == 32 || code == 341 || code == 613 || code >= 80000 && code <= 80014:
		return outcome.KindTemporary, outcome.RateLimited, "too many calls"
	case code == 1 || code == 2:
		return outcome.KindTemporary, outcome.Unavailable, "it has trouble"
	case code == 368:
		return outcome.KindTemporary, outcome.Refused, "it has blocked us for a while"
	case code == 10 || code >= 200 && code <= 299:
		return outcome.KindPermanent, outcome.Refused, forbidden
	case code == 100 && strings.Contains(message, "appsecret_proof"): // the one refusal of this code that all calls meet
		return outcome.KindBlocked, outcome.Refused, misused
	case code == 100 || code == 803:
		return outcome.KindPermanent, outcome.Unknown, "it does not exist, or is hidden from the token"
	case code == 3 || code == 12 || code == 2500 || code == 2635:
		return outcome.KindBlocked, outcome.Refused, misused
	case code != 0:
		return outcome.KindTemporary, outcome.Unavailable, "an error that we do not know"
	case status == http.StatusUnauthorized:
		return outcome.KindBlocked, outcome.Auth, "the token is refused; renew FACEBOOK_PAGE_ACCESS_TOKEN and restart consumers"
	case status == http.StatusTooManyRequests:
		return outcome.KindTemporary, outcome.RateLimited, "too many calls"
	case status >= 300 && status <= 399 || status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		return outcome.KindBlocked, outcome.Refused, "this is not the Graph API; check FACEBOOK_GRAPH_URL"
	default:
		return outcome.KindTemporary, outcome.Unavailable, "it has trouble"
	}
}

// unanswered is the outcome of a call that got no whole answer. url.Error is taken
// apart because it quotes the URL, and with it the proof.
func unanswered(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var n net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout() {
		return outcome.Temporary(outcome.Timeout, errors.New("no answer from Graph in time"))
	}
	return outcome.Temporary(outcome.Unavailable, fmt.Errorf("no answer from Graph: %w", err))
}
