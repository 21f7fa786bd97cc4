//! The explored graph: runs of instructions between two decisions, and where control goes from each.
//!
//! Every concrete run follows a path in it. Some edges consume one iteration of the may_goto budget; without them the graph
//! must have no cycle, so that a run is at most `budget + 1` pieces of bounded length:
//! `steps <= first + budget * piece`.

use crate::insn::Pc;

/// Index of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(crate) const ENTRY: Self = Self(0);

    fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// First instruction.
    pc: Pc,
    /// Executed instructions, what callbacks execute included.
    steps: u64,
    parent: NodeId,
    /// Children that are not explored to their ends yet.
    pending: u32,
    /// Consuming edges on the way here.
    consumed: u32,
    /// The branch that led here.
    decision: Option<(Pc, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    from: NodeId,
    to: NodeId,
    consuming: bool,
}

/// Worst cases of a graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lengths {
    /// Most steps from the entry until the first consumed iteration, or the end.
    pub(crate) first: u64,
    /// Most steps from one consumed iteration until the next, or the end; 0 if none is ever consumed.
    pub(crate) piece: u64,
}

/// The graph, grown depth-first.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

/// How a node is reached from its parent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) from: NodeId,
    pub(crate) consuming: bool,
    pub(crate) decision: Option<(Pc, bool)>,
}

impl Graph {
    pub(crate) fn entry(&mut self, pc: Pc) -> NodeId {
        self.nodes.push(Node {
            pc,
            steps: 0,
            parent: NodeId::ENTRY,
            pending: 0,
            consumed: 0,
            decision: None,
        });
        NodeId::ENTRY
    }

    /// A new node; its parent is unfinished until [`Self::finish`] was called for it.
    pub(crate) fn child(&mut self, pc: Pc, arrival: Arrival) -> NodeId {
        // SANITY: the analysis budget is far below 2^32 nodes.
        let id = NodeId(self.nodes.len() as u32);
        let from = &mut self.nodes[arrival.from.index()];
        from.pending += 1;
        let consumed = from.consumed + u32::from(arrival.consuming);
        self.nodes.push(Node {
            pc,
            steps: 0,
            parent: arrival.from,
            pending: 0,
            consumed,
            decision: arrival.decision,
        });
        self.link(arrival.from, id, arrival.consuming);
        id
    }

    /// Control also goes from `from` to `to`, which was explored for it.
    pub(crate) fn link(&mut self, from: NodeId, to: NodeId, consuming: bool) {
        self.edges.push(Edge {
            from,
            to,
            consuming,
        });
    }

    pub(crate) fn step(&mut self, node: NodeId, steps: u64) {
        let node = &mut self.nodes[node.index()];
        node.steps = node.steps.saturating_add(steps);
    }

    /// Nothing more comes after `node` than its children: marks it and finished parents.
    pub(crate) fn finish(&mut self, node: NodeId) {
        let mut at = node;
        while self.nodes[at.index()].pending == 0 && at != NodeId::ENTRY {
            at = self.nodes[at.index()].parent;
            self.nodes[at.index()].pending -= 1;
        }
    }

    /// `children` more are to come: until then `node` is on the path that is being explored.
    pub(crate) fn expect(&mut self, node: NodeId, children: u32) {
        self.nodes[node.index()].pending += children;
    }

    /// One of the expected children has become a node.
    pub(crate) fn unexpect(&mut self, node: NodeId) {
        self.nodes[node.index()].pending -= 1;
    }

    /// Has more iterations been consumed at `node` than at its ancestor `earlier`?
    pub(crate) fn consumed_since(&self, earlier: NodeId, node: NodeId) -> bool {
        self.nodes[node.index()].consumed > self.nodes[earlier.index()].consumed
    }

    /// Is `node` on the path that is being explored, with more to come?
    pub(crate) fn is_open(&self, node: NodeId) -> bool {
        self.nodes[node.index()].pending > 0
    }

    /// Branch decisions from the entry to `node`, the last `most` of them.
    pub(crate) fn path(&self, node: NodeId, most: usize) -> Vec<(Pc, bool)> {
        let mut path = Vec::new();
        let mut at = node;
        while at != NodeId::ENTRY && path.len() < most {
            let node = &self.nodes[at.index()];
            path.extend(node.decision);
            at = node.parent;
        }
        path.reverse();
        path
    }

    /// Longest paths, or the first instruction of a node that can come back to itself without consuming anything.
    pub(crate) fn lengths(&self) -> Result<Lengths, Pc> {
        let mut waiting = vec![0u32; self.nodes.len()];
        let mut start = vec![0usize; self.nodes.len() + 1];
        for edge in self.edges.iter().filter(|edge| !edge.consuming) {
            waiting[edge.to.index()] += 1;
            start[edge.from.index() + 1] += 1;
        }
        for index in 1..start.len() {
            start[index] += start[index - 1];
        }
        let mut next = start.clone();
        let mut targets = vec![0usize; start[self.nodes.len()]];
        for edge in self.edges.iter().filter(|edge| !edge.consuming) {
            targets[next[edge.from.index()]] = edge.to.index();
            next[edge.from.index()] += 1;
        }
        // Topological order; what is left over lies on or behind a cycle.
        let mut order: Vec<usize> = (0..self.nodes.len())
            .filter(|node| waiting[*node] == 0)
            .collect();
        let mut done = 0;
        while let Some(&node) = order.get(done) {
            done += 1;
            for &target in &targets[start[node]..start[node + 1]] {
                waiting[target] -= 1;
                if waiting[target] == 0 {
                    order.push(target);
                }
            }
        }
        if done < self.nodes.len() {
            return Err(self.cycle(&waiting));
        }
        let mut longest = vec![0u64; self.nodes.len()];
        for &node in order.iter().rev() {
            let rest = targets[start[node]..start[node + 1]]
                .iter()
                .map(|target| longest[*target])
                .max()
                .unwrap_or(0);
            longest[node] = self.nodes[node].steps.saturating_add(rest);
        }
        let piece = self
            .edges
            .iter()
            .filter(|edge| edge.consuming)
            .map(|edge| longest[edge.to.index()])
            .max()
            .unwrap_or(0);
        Ok(Lengths {
            first: longest.first().copied().unwrap_or(0),
            piece,
        })
    }

    /// The first instruction of a node on a cycle. Every node that is left over has a predecessor that is: going back from
    /// one to the next ends in a cycle.
    fn cycle(&self, waiting: &[u32]) -> Pc {
        let mut before = vec![None; self.nodes.len()];
        for edge in self.edges.iter().filter(|edge| !edge.consuming) {
            if waiting[edge.from.index()] > 0 {
                before[edge.to.index()] = Some(edge.from.index());
            }
        }
        let mut seen = vec![false; self.nodes.len()];
        let mut at = waiting.iter().position(|count| *count > 0);
        let mut pc = Pc(0);
        while let Some(node) = at {
            pc = self.nodes[node].pc;
            if std::mem::replace(&mut seen[node], true) {
                break;
            }
            at = before[node];
        }
        pc
    }
}
