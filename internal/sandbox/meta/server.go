// Package meta is a stand-in for the part of Meta's Graph API that reads leads, and
// a maker of the leadgen webhooks that announce them. Leads are put in from Go. It
// checks the token and its proof, answers errors as Graph does, nearly always with
// HTTP 400 and a code in the body, and fails on demand.
package meta

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say how the stand-in behaves. Token is needed.
type Options struct {
	Token     string // the page access token
	AppSecret string // when set, every call must carry the right appsecret_proof

	MinLatency, MaxLatency time.Duration // see SetLatency
	// Fault picks a fault for one call; nil or "" is none. SetFault outweighs it.
	Fault func(Call) Fault
	// What the token is: by default that of a page, which never ends and may read leads.
	About About
	// Unknown are fields that the API does not know, of those that it knows else: another
	// version's, or such that the token has no right to.
	Unknown []string
	// RegainMinutes is what the usage header of a rate limit says to wait. Default 1.
	RegainMinutes int
	// Seed makes latencies and trace ids repeatable; 0 takes a random one.
	Seed uint64
}

// A Fault is a way for a call to go wrong. A read leaves nothing behind in any case.
type Fault string

// The faults.
const (
	TokenExpired Fault = "token_expired" // code 190, subcode 463
	AppLimit     Fault = "app_limit"     // code 4
	UserLimit    Fault = "user_limit"    // code 17
	OldPageLimit Fault = "page_limit_32" // code 32
	CustomLimit  Fault = "custom_limit"  // code 613
	PageLimit    Fault = "page_limit"    // code 80005, with the time to wait in X-Business-Use-Case-Usage
	Temporary    Fault = "temporary"     // code 2
	HTML500      Fault = "html_500"      // HTTP 500 with a page of HTML
	HTML503      Fault = "html_503"      // HTTP 503 with a page of HTML
	HangUp       Fault = "hang_up"       // the connection closes without an answer
	Hang         Fault = "hang"          // no answer, for as long as the caller waits

	NotShown    Fault = "not_shown"   // code 100, subcode 33: not there, or not for this token
	Unsupported Fault = "unsupported" // code 100 without a subcode
	Forbidden   Fault = "forbidden"   // code 200: a permission is missing
	NoFields    Fault = "no_fields"   // the lead, without field_data: what a token without leads_retrieval sees
)

// A Call is one request to the API.
type Call struct {
	Began  time.Time // before anything was checked
	IDs    []string  // the leads that it asks for
	Status int       // the HTTP status answered; 0: none yet, or the connection was closed
	Code   int       // Graph's error code, or 0
	Fault  Fault
}

// A Lead is what a person sent with a form.
type Lead struct {
	ID          string // digits
	CreatedTime time.Time
	PageID      string
	FormID      string
	AdID        string // "" of an organic lead
	AdgroupID   string // only in the webhook
	CampaignID  string
	Fields      []Field
	Disclaimers []Disclaimer
	IsOrganic   bool
	Platform    string // "fb" or "ig"
}

// A Field is one answer. Values may be empty, or several.
type Field struct {
	Name   string   `json:"name"`
	Values []string `json:"values"`
}

// A Disclaimer is one consent check box. Boxes are not among the fields, and are
// answered only when custom_disclaimer_responses is asked for.
type Disclaimer struct {
	CheckboxKey string
	IsChecked   bool
}

// A Server is the stand-in, an http.Handler. It is safe for concurrent use and starts
// no goroutine.
type Server struct {
	opt Options

	mu     sync.Mutex
	rng    *rand.Rand
	fault  Fault
	leads  map[string]Lead
	faulty map[string]Fault // by lead
	calls  []*Call
}

// New takes no address: serve the result with net/http. An error means that Options
// are unusable.
func New(opt Options) (*Server, error) {
	if opt.Token == "" {
		return nil, errors.New("meta stand-in: a token must be given")
	}
	if opt.MaxLatency < opt.MinLatency {
		return nil, errors.New("meta stand-in: latency ends before it begins")
	}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64()
	}
	if opt.RegainMinutes == 0 {
		opt.RegainMinutes = 1
	}
	return &Server{opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0)), leads: map[string]Lead{}, faulty: map[string]Fault{}}, nil
}

// AddLead makes a lead readable, or replaces it.
func (s *Server) AddLead(l Lead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leads[l.ID] = l
}

// SetFault makes every call from now on meet a fault; "" ends it.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// SetFaultOf makes every call for a lead meet a fault from now on; "" ends it. SetFault
// outweighs it.
func (s *Server) SetFaultOf(id string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faulty[id] = f
}

// SetLatency is how long calls take from now on, drawn between the two.
func (s *Server) SetLatency(least, most time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opt.MinLatency, s.opt.MaxLatency = least, most
}

// Calls are the requests that began, oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Call, len(s.calls))
	for i, c := range s.calls {
		out[i] = *c
	}
	return out
}

// Proof is the appsecret_proof of a token: HMAC-SHA256 under the app secret, in hex.
// https://developers.facebook.com/docs/graph-api/guides/secure-requests
func Proof(token, appSecret string) string {
	mac := hmac.New(sha256.New, []byte(appSecret))
	mac.Write([]byte(token))
	return hex.EncodeToString(mac.Sum(nil))
}

// A problem is what Graph answers in place of a lead.
type problem struct {
	status  int
	Message string `json:"message"`
	Type    string `json:"type"`
	Code    int    `json:"code"`
	Subcode int    `json:"error_subcode,omitempty"`
	Trace   string `json:"fbtrace_id"`
}

func bad(code, subcode int, message string) *problem {
	return &problem{status: http.StatusBadRequest, Message: message, Type: "OAuthException", Code: code, Subcode: subcode}
}

// notShown is Graph's answer for a lead that is not there, or that the token may not see.
func notShown(id string) *problem {
	return &problem{status: http.StatusBadRequest, Type: "GraphMethodException", Code: 100, Subcode: 33,
		Message: "unsupported get request: object with id '" + id + "' does not exist, cannot be loaded due to missing permissions, or does not support this operation"}
}

var faults = map[Fault]*problem{
	TokenExpired: bad(190, 463, "error validating access token: the session has expired"),
	AppLimit:     bad(4, 0, "(#4) application request limit reached"),
	UserLimit:    bad(17, 2446079, "(#17) user request limit reached"),
	OldPageLimit: bad(32, 0, "(#32) page request limit reached"),
	CustomLimit:  bad(613, 0, "(#613) calls to this api have exceeded the rate limit"),
	PageLimit:    bad(80005, 2446079, "(#80005) too many leadgen calls for this page"),
	Temporary:    bad(2, 0, "(#2) service temporarily unavailable"),
	NotShown:     notShown("1"),
	Unsupported:  bad(100, 0, "(#100) object does not exist, cannot be loaded due to missing permission or reviewable feature, or does not support this operation"),
	Forbidden:    bad(200, 0, "(#200) requires leads_retrieval permission to manage the object"),
}

var paths = regexp.MustCompile(`^/v[0-9]+\.[0-9]+(?:/([0-9]+)?)?$`)

// ServeHTTP answers GET /{version}/{leadgen_id} with one lead, and
// GET /{version}/?ids=a,b with up to 50, as an object by id. As in Graph one id that
// can't be read fails the whole call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := &Call{Began: time.Now()}
	path := paths.FindStringSubmatch(r.URL.Path)
	q := r.URL.Query()
	single := path != nil && path[1] != ""
	if single {
		call.IDs = []string{path[1]}
	} else if ids := q.Get("ids"); ids != "" {
		call.IDs = strings.Split(ids, ",")
	}
	if about := tokenPaths.FindStringSubmatch(r.URL.Path); about != nil && r.Method == http.MethodGet {
		s.about(w, r, about[1])
		return
	}
	fault, wait := s.begin(call)
	if wait > 0 {
		time.Sleep(wait)
	}

	var body any
	fail := faults[fault]
	switch {
	case fault == HangUp:
		panic(http.ErrAbortHandler)
	case fault == Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case fault == HTML500 || fault == HTML503:
		status := http.StatusInternalServerError
		if fault == HTML503 {
			status = http.StatusServiceUnavailable
		}
		s.finish(call, status, 0)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprint(w, "<!DOCTYPE html><html><body>Sorry, something went wrong.</body></html>\n")
		return
	case path == nil:
		fail = bad(2500, 0, "unknown path components: "+r.URL.Path)
		fail.status = http.StatusNotFound
	case r.Method != http.MethodGet:
		fail = bad(100, 33, "unsupported request: this object can only be read")
	case fail != nil:
	default:
		if fail = s.authenticate(r); fail == nil {
			body, fail = s.read(call.IDs, single, q.Get("fields"), fault)
		}
	}

	usage := `[{"type":"leadgen","call_count":1,"total_cputime":1,"total_time":1,"estimated_time_to_regain_access":0}]`
	if fail != nil && fail.Code == 80005 {
		usage = fmt.Sprintf(`[{"type":"leadgen","call_count":100,"total_cputime":25,"total_time":25,"estimated_time_to_regain_access":%d}]`, s.opt.RegainMinutes)
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.Header().Set("X-Business-Use-Case-Usage", `{"100000000000001":`+usage+`}`)
	status, code := http.StatusOK, 0
	if fail != nil {
		p := *fail
		p.Trace = s.trace()
		status, code, body = p.status, p.Code, map[string]problem{"error": p}
		if p.Code == 190 || p.Code == 104 {
			w.Header().Set("WWW-Authenticate", `OAuth "Facebook Platform" "invalid_token"`)
		}
	}
	s.finish(call, status, code)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a caller that left is no concern of ours
}

func (s *Server) begin(call *Call) (Fault, time.Duration) {
	if s.opt.Fault != nil {
		call.Fault = s.opt.Fault(*call)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range call.IDs {
		if f := s.faulty[id]; f != "" {
			call.Fault = f
		}
	}
	if s.fault != "" {
		call.Fault = s.fault
	}
	s.calls = append(s.calls, call)
	wait := s.opt.MinLatency
	if span := s.opt.MaxLatency - s.opt.MinLatency; span > 0 {
		wait += time.Duration(s.rng.Int64N(int64(span) + 1))
	}
	return call.Fault, wait
}

func (s *Server) finish(call *Call, status, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call.Status, call.Code = status, code
}

func (s *Server) trace() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("A%016x", s.rng.Uint64())
}

// authenticate checks the token, in the Authorization header or the query, and its
// proof.
func (s *Server) authenticate(r *http.Request) *problem {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		token = r.URL.Query().Get("access_token")
	}
	if token == "" {
		return bad(104, 0, "an access token is required to request this resource")
	}
	if !hmac.Equal([]byte(token), []byte(s.opt.Token)) {
		return bad(190, 0, "invalid OAuth access token")
	}
	if s.opt.AppSecret == "" {
		return nil
	}
	switch proof := r.URL.Query().Get("appsecret_proof"); {
	case proof == "":
		return bad(100, 0, "API calls from the server require an appsecret_proof argument")
	case !hmac.Equal([]byte(proof), []byte(Proof(token, s.opt.AppSecret))):
		return bad(100, 0, "invalid appsecret_proof provided in the API argument")
	}
	return nil
}

func (s *Server) read(ids []string, single bool, fields string, fault Fault) (any, *problem) {
	switch {
	case len(ids) == 0:
		return nil, bad(2500, 0, "no node specified")
	case len(ids) > 50:
		return nil, bad(100, 0, fmt.Sprintf("(#100) too many ids: 50 at most, %d given", len(ids)))
	}
	names := []string{"id", "created_time", "field_data"} // what Graph gives unasked
	if fields != "" {
		names = strings.Split(fields, ",")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]any{}
	for _, id := range ids {
		l, ok := s.leads[id]
		if !ok {
			return nil, notShown(id)
		}
		object, unknown := l.render(names)
		if i := slices.IndexFunc(names, func(n string) bool { return slices.Contains(s.opt.Unknown, n) }); i >= 0 {
			unknown = names[i]
		}
		if fault == NoFields {
			delete(object, "field_data")
		}
		if unknown != "" {
			return nil, bad(100, 0, "(#100) tried accessing nonexisting field ("+unknown+")")
		}
		if single {
			return object, nil
		}
		out[id] = object
	}
	return out, nil
}

// createdTime is Graph's layout of a time, which is not RFC 3339.
const createdTime = "2006-01-02T15:04:05-0700"

// render gives the fields that were asked for, as far as the lead has them, and names
// one that Graph does not know.
func (l Lead) render(names []string) (object map[string]any, unknown string) {
	boxes := []map[string]string{}
	for _, d := range l.Disclaimers {
		checked := ""
		if d.IsChecked {
			checked = "1"
		}
		boxes = append(boxes, map[string]string{"checkbox_key": d.CheckboxKey, "is_checked": checked})
	}
	data := slices.Clone(l.Fields)
	if data == nil {
		data = []Field{}
	}
	for i := range data {
		if data[i].Values == nil {
			data[i].Values = []string{}
		}
	}
	all := map[string]any{
		"id": l.ID, "created_time": l.CreatedTime.UTC().Format(createdTime), "form_id": l.FormID,
		"field_data": data, "custom_disclaimer_responses": boxes,
		"ad_id": l.AdID, "campaign_id": l.CampaignID, "is_organic": l.IsOrganic, "platform": l.Platform,
	}
	object = map[string]any{"id": l.ID} // whatever was asked for
	for _, name := range names {
		v, ok := all[strings.TrimSpace(name)]
		if !ok {
			return nil, name
		}
		if v == "" || len(boxes) == 0 && name == "custom_disclaimer_responses" {
			continue
		}
		object[strings.TrimSpace(name)] = v
	}
	return object, ""
}
